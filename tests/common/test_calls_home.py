"""No library that this program loads calls home, whatever it would do by itself."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from common.calls_home import SWITCHES
from common.config.run import RunConfig
from common.data.splits import TEST
from simulations.data.synthetic import write_synthetic
from simulations.runtimes.experiment import with_splits
from tests.commands import FEDDERM, IID, metrics_of
from tests.documents import switched_off
from tests.sites import QUICK
from tests.watch import Watch

ROOT = Path(__file__).parents[2]
ROOMS = ("client", "common", "server", "simulations")
CALLER = """
import socket
for port in (53, 443):
    socket.socket(type=socket.SOCK_DGRAM).connect_ex(("192.0.2.1", port))
socket.socket(type=socket.SOCK_DGRAM).connect_ex(("127.0.0.1", 443))
"""
"""Connects to a name server and to a host that exist nowhere; of datagrams nothing is sent."""


def libraries() -> list[str]:
    """Name all that is imported anywhere in this program, first its own modules."""
    found = []
    for room in ROOMS:
        for file in sorted((ROOT / room).rglob("*.py")):
            found.append(".".join(file.relative_to(ROOT).with_suffix("").parts))
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Import):
                    found += [alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom):
                    found.append(str(node.module))
    return sorted(set(found), key=lambda name: (name.split(".")[0] not in ROOMS, name))


def test_a_watch_sees_what_leaves(tmp_path):
    watch = Watch(tmp_path)
    watch.run(sys.executable, "-c", CALLER)
    assert watch.reached() == {"192.0.2.1 port 53", "192.0.2.1 port 443"}


@pytest.mark.parametrize("room", [*ROOMS, "fedderm"])
def test_whoever_imports_a_room_has_switched_it_off_before_any_library(room):
    before = "list(sys.modules)[:list(sys.modules).index('common.calls_home')]"
    code = f"import os, sys, {room}; print(dict(os.environ)); print('numpy' in {before})"
    on = {name: str(1 - int(value)) for name, value in SWITCHES.items()}
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, env={**os.environ, **on}, capture_output=True, text=True)
    environment, loaded = run.stdout.splitlines()
    assert ast.literal_eval(environment).items() >= SWITCHES.items()
    assert loaded == "False"


def test_the_documents_list_what_is_switched_off():
    assert switched_off() == {f"{name}={value}" for name, value in SWITCHES.items()}


def test_no_library_calls_home_when_it_is_imported(tmp_path):
    watch = Watch(tmp_path)
    code = "import importlib, sys; [importlib.import_module(name) for name in sys.argv[1:]]"
    watch.run(sys.executable, "-c", code, *libraries())
    assert watch.reached() == set()
    assert watch.left() <= {".cache/matplotlib", ".cache/fontconfig"}


def test_from_image_files_to_a_diagnosis_nothing_leaves(tmp_path):
    """With the real network, on as few and as small images as it takes."""
    data, out, watch = tmp_path / "data", tmp_path / "out", Watch(tmp_path / "watch")
    write_synthetic(data, images=60, seed=3)
    config = QUICK.model_copy(update={"size": 64, "components": 64, "c": (1e-5,)})
    default = RunConfig().flat()
    settings = [f"{k}={v}" for k, v in config.flat().items() if v != default.get(k)]
    watch.run(*FEDDERM, "simulate", data, "--out", out, *IID, *settings)
    dataset = with_splits(data, config)
    truth = {
        str(Path(*dataset.files[image.image_id])): image.dx
        for image in dataset.images
        if image.split == TEST
    }
    # From the run's folder alone.
    answers = json.loads(watch.run(*FEDDERM, "predict", out, *truth, "--json"))
    overall = metrics_of(out / "run")["overall"]
    assert overall["n"] == len(truth)
    correct = [each["stands_out"] == truth[each["image"]] for each in answers]
    assert overall["accuracy"] == pytest.approx(np.mean(correct))
    assert watch.reached() == set()
    assert {Path(folder).parts[:2] for folder in watch.left()} == {(".cache", "fedderm")}
