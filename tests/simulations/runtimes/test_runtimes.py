"""The real apps give one model, in this process and under ``flwr run``."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from client.open_site import site_folders
from client.privacy.ledger import SEAL_FOLDER, Ledger
from common.config.run import RunConfig
from common.errors import QuorumError
from common.flower_commands import run_config_toml
from common.models.linear import LinearModel
from common.models.network import NetworkModel
from server.run.folder import METRICS_FILE, MODEL_FILE, STATISTICS_FILE
from server.run.progress import TRAINING_FILE
from server.run.summary import run_summary
from server.survey.documents import HTML_FILE
from simulations.cli.settings import FLOWER_FOLDERS
from simulations.runtimes.experiment import rounds, simulate
from simulations.runtimes.flower_home import SITES, write_flower_home
from simulations.runtimes.flower_run import FAILED_START, end_processes, flwr_run
from tests.finetuning import dealt, quick, small_dataset, spread
from tests.simulations.runtimes.test_flower_run import processes_of
from tests.sites import N_FEATURES, make_quick_sites, with_changes
from tests.watch import HIDING, Watch

ROOT = Path(__file__).parents[3]

FLWR_RUN = """
import json, sys
from pathlib import Path
from simulations.runtimes.flower_home import SITES, write_flower_home
from simulations.runtimes.flower_run import FAILED_START, end_processes, flwr_run
app, settings, sites, home = sys.argv[1:]
run = flwr_run(Path(app), json.loads(settings), int(sites), Path(home))
sys.exit(run.stdout if run.returncode else 0)
"""


@pytest.fixture(scope="module")
def config(synthetic_folder, tmp_path_factory) -> RunConfig:
    """Two sites that both runtimes wait for."""
    config = make_quick_sites(synthetic_folder, tmp_path_factory.mktemp("sites"), 2)
    return config.model_copy(update={"expected": 2, "quorum": 2, "c": (1e-4,)})


@pytest.fixture
def clone(tmp_path) -> Iterator[Path]:
    """Copy what Flower packs, beside a virtual environment; end what was started from there."""
    folder = tmp_path / "clone"
    for name in ("client", "common", "server"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / ".venv"], check=True)
    write_flower_home(folder / ".venv")
    with tempfile.TemporaryDirectory(prefix="ray-") as ray_folder:
        (folder / ".venv" / "ray").symlink_to(ray_folder)
        try:
            yield folder
        finally:
            end_processes(f"RAY_TMPDIR={ray_folder}")


def in_clone(clone: Path, command: str) -> str:
    """Run a command in a shell with the clone's environment activated; return what it shows."""
    environment = {name: value for name, value in os.environ.items() if name not in HIDING}
    environment |= {
        "HOME": str(clone),
        "PATH": f"{sysconfig.get_path('scripts')}:{os.environ['PATH']}",
        "RAY_TMPDIR": str((clone / ".venv" / "ray").readlink()),
    }
    shell = ["bash", "-c", f". .venv/bin/activate && {command}"]
    options = {"cwd": clone, "env": environment, "capture_output": True, "text": True}
    for _ in range(3):
        run = subprocess.run(shell, **options, check=False)
        if FAILED_START not in run.stdout + run.stderr:
            break
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


def test_flwr_run_trains_the_model_of_the_in_process_run(config, tmp_path):
    here = config.model_copy(update={"out": tmp_path / "here"})
    simulate(here)
    there = config.model_copy(update={"out": tmp_path / "there"})
    watch = Watch(tmp_path / "watch")
    settings = json.dumps(there.flat())
    watch.run(sys.executable, "-c", FLWR_RUN, ROOT, settings, 2, tmp_path / "home")
    assert [entry["question"] for entry in rounds(there.out)] == [
        entry["question"] for entry in rounds(here.out)
    ]
    views = np.random.default_rng(0).standard_normal((50, 1, N_FEATURES))
    found = LinearModel.load(there.out / MODEL_FILE)
    expected = LinearModel.load(here.out / MODEL_FILE)
    # Ray gives a site other numbers of threads: for large matrices, the last bits may differ.
    np.testing.assert_allclose(found.scores(views), expected.scores(views), rtol=0, atol=1e-12)
    # Ray neither listens to other machines nor asks them, and Flower calls nobody.
    assert watch.reached() == set()
    assert watch.left() == set()


def test_so_it_does_with_statistics(config, tmp_path):
    base = with_changes(config, {"method": "statistics"})
    here, there = (base.model_copy(update={"out": tmp_path / name}) for name in ("here", "there"))
    expected = simulate(here)
    run = flwr_run(ROOT, there.flat(), sites=2, home=tmp_path / "home")
    assert run.returncode == 0, run.stdout
    assert json.loads((there.out / STATISTICS_FILE).read_text()) == expected
    assert (there.out / HTML_FILE).read_text() == (here.out / HTML_FILE).read_text()


def test_so_it_does_with_fine_tuning(synthetic_folder, network_file, tmp_path):
    spread(small_dataset(synthetic_folder), tmp_path, dealt(2))
    config = quick(tmp_path, network_file, rounds=1, expected=2, quorum=2, personal=1)
    here = config.model_copy(update={"out": tmp_path / "here", "cache": tmp_path / "cache-here"})
    simulate(here)
    there = config.model_copy(update={"out": tmp_path / "there"})
    run = flwr_run(ROOT, there.flat(), sites=2, home=tmp_path / "home")
    assert run.returncode == 0, run.stdout
    found, expected = (
        NetworkModel.load(each.out / MODEL_FILE, each.weights) for each in (there, here)
    )
    assert found.weights.keys() == expected.weights.keys()
    for name, tensor in expected.weights.items():
        np.testing.assert_array_equal(found.weights[name], tensor)
    asked = [[entry["question"] for entry in rounds(each.out)] for each in (there, here)]
    assert asked[0] == asked[1]
    lines = [(each.out / TRAINING_FILE).read_text().splitlines() for each in (there, here)]
    assert len(lines[0]) == len(lines[1]) == 3


def test_so_does_a_run_that_goes_on_from_another(synthetic_folder, network_file, tmp_path):
    spread(small_dataset(synthetic_folder), tmp_path, dealt(2))
    config = quick(tmp_path, network_file, rounds=1, expected=2, quorum=2)
    first = with_changes(config, {"out": tmp_path / "first"})
    simulate(first)
    on = {"parent": first.out, "distillation": 1, "stages": "all"}
    here, there = (with_changes(config, {**on, "out": tmp_path / n}) for n in ("here", "there"))
    simulate(here)
    run = flwr_run(ROOT, there.flat(), sites=2, home=tmp_path / "home")
    assert run.returncode == 0, run.stdout
    found, expected = (
        NetworkModel.load(each.out / MODEL_FILE, each.weights) for each in (there, here)
    )
    for name, tensor in expected.weights.items():
        np.testing.assert_array_equal(found.weights[name], tensor)
    lineages = [
        json.loads((each.out / METRICS_FILE).read_text())["lineage"] for each in (there, here)
    ]
    assert lineages[0] == lineages[1]


def test_a_private_run_is_paid_for_under_every_runtime(synthetic_folder, tmp_path):
    base = make_quick_sites(synthetic_folder, tmp_path, 2)
    private = {"method": "private", "epsilon": 4.0, "steps": 3, "components": 16}
    config = with_changes(base, {**private, "expected": 2, "quorum": 2})
    run = flwr_run(ROOT, {**config.flat(), "out": str(tmp_path / "run")}, 2, tmp_path / "home")
    assert run.returncode == 0, run.stdout
    assert LinearModel.load(tmp_path / "run" / MODEL_FILE).config.epsilon == 4
    for folder in site_folders(config.sites):
        account = Ledger(folder / "ledger", folder / "ledger" / SEAL_FOLDER).account()
        assert account.spent == pytest.approx(4, abs=0.01)
    with pytest.raises(QuorumError, match="does not allow 'overview and training'"):
        simulate(config.model_copy(update={"out": tmp_path / "again"}))


def test_a_secure_run_in_an_activated_clone_has_the_same_sums(synthetic_folder, tmp_path, clone):
    base = make_quick_sites(synthetic_folder, clone / "data", SITES)
    changes = {"head": "ridge", "secure": True, "expected": SITES, "quorum": SITES}
    here = with_changes(base, {**changes, "out": tmp_path / "here"})
    simulate(here)
    settings = {**here.flat(), **FLOWER_FOLDERS}
    (clone / "settings.toml").write_text(run_config_toml(settings))
    shown = in_clone(clone, "flwr run . --stream --run-config settings.toml")
    there = clone / "runs" / "flower"
    assert f"run folder: {there}" in shown, shown[-3000:]
    metrics = json.loads((there / METRICS_FILE).read_text())
    assert all(line in shown for line in run_summary(metrics).splitlines())
    stop = re.search("end it: (kill [0-9]+)", shown).group(1)
    in_clone(clone, stop)
    while processes_of(clone):
        time.sleep(0.1)
    asked = [[entry["question"] for entry in rounds(out)] for out in (here.out, there)]
    assert asked[0] == asked[1]
    assert "secure.unmask" in asked[0]
    found, expected = (LinearModel.load(out / MODEL_FILE) for out in (there, here.out))
    np.testing.assert_allclose(found.weights, expected.weights, rtol=0, atol=1e-9)
