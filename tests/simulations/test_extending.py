"""A method is one entry and its own modules: the recipe of the document, taken literally."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from common.data.dataset import Dataset
from server.run.folder import CARD_FILE, MODEL_FILE
from tests.commands import FEDDERM, IID, metrics_of

ROOT = Path(__file__).parents[2]
ROOMS = ("client", "common", "server", "simulations")
RECIPE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
FILES = re.findall(r"(?ms)^`(nearest_mean/\w+\.py)`\n\n```python\n(.*?)^```$", RECIPE)
[ENTRY] = re.findall(r"(?ms)^```python\n(Method\(\n.*?^\))\n```$", RECIPE)
IMPORT = "from nearest_mean.settings import NearestMeanConfig\n"
END = '    )\n}\n"""All methods by name'

STUDY = """
folds = 2
views = 1
resamples = 200
[routes.mean]
method = "nearest_mean"
sharpness = 0.01
size = 64
levels = 0
predictions = 1
[spreads]
pooled = { scheme = "pooled" }
natural = { scheme = "natural" }
[[arms]]
route = "mean"
spreads = ["pooled", "natural"]
"""


class Copy:
    """A copy of the program to which the method of the recipe was added."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for room in ROOMS:
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / room, folder / room, ignore=ignored)
        for name, content in FILES:
            file = folder / name
            file.parent.mkdir(exist_ok=True)
            file.write_text(content)
        methods = folder / "common" / "methods.py"
        text = methods.read_text()
        assert text.count(END) == 1
        text = text.replace(END, f"{ENTRY},\n{END}").replace(
            "from common.", IMPORT + "from common.", 1
        )
        methods.write_text(text)

    def type(self, *arguments: object) -> "subprocess.CompletedProcess[str]":
        """Type a command of the copy."""
        return self.run(*FEDDERM, *map(str, arguments))

    def run(self, *command: str) -> "subprocess.CompletedProcess[str]":
        """Run a process that finds the copy first."""
        environment = {**os.environ, "PYTHONPATH": str(self.folder)}
        return subprocess.run(
            command,
            env=environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Copy:
    return Copy(tmp_path_factory.mktemp("copy"))


@pytest.fixture(scope="module")
def trained(copy, synthetic_folder, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("mean") / "out"
    settings = ("method=nearest_mean", "sharpness=0.01", "size=64", "levels=0", "views=1")
    cache = f"cache={tmp_path_factory.mktemp('cache')}"
    run = copy.type(
        *("simulate", synthetic_folder, "--out", out, *IID, *settings, "predictions=1", cache)
    )
    assert run.returncode == 0, run.stderr
    return out / "run"


def test_its_settings_are_listed_and_others_refused(copy, tmp_path):
    listed = copy.type("settings", "nearest_mean")
    assert listed.returncode == 0, listed.stderr
    assert "  sharpness=1.0 " in listed.stdout
    assert "[above 0]" in listed.stdout
    assert "lr=" not in listed.stdout
    simulate = ("simulate", tmp_path, "--out", tmp_path / "out")
    refused = copy.type(*simulate, "method=nearest_mean", "lr=1")
    assert refused.returncode == 1
    assert "'lr' is 1.0, but method nearest_mean does not use it" in refused.stderr
    others = copy.type(*simulate, "sharpness=2")
    assert "'sharpness' is 2.0, but method svm does not use it" in others.stderr


def test_it_trains_and_its_card_and_model_are_its_own(trained, copy, synthetic_folder):
    card = (trained / CARD_FILE).read_text()
    assert "A nearest class mean of frozen features of" in card
    assert "- sharpness: 0.01" in card
    assert "SVM" not in card
    metrics = metrics_of(trained)
    assert metrics["overall"]["balanced_accuracy"] > 0.5
    weights = load_file(trained / MODEL_FILE)["weights"]
    assert weights.shape == (7, 1280 + 1)
    assert np.isfinite(weights).all()


def test_it_predicts(trained, copy, synthetic_folder):
    dataset = Dataset.open(synthetic_folder)
    image = next(synthetic_folder.rglob(f"{dataset.images[0].image_id}.jpg"))
    answered = copy.type("predict", trained, image)
    assert answered.returncode == 0, answered.stderr
    assert str(image) in answered.stdout
    assert "no calibration lesions" in answered.stdout


def test_it_takes_part_in_a_study(copy, synthetic_folder, tmp_path):
    study = tmp_path / "study.toml"
    study.write_text(STUDY)
    out = tmp_path / "out"
    compared = copy.type(
        *(
            "compare",
            synthetic_folder,
            "--out",
            out,
            "--study",
            study,
            "--cache",
            tmp_path / "cache",
        )
    )
    assert compared.returncode == 0, compared.stderr
    assert "mean" in compared.stdout
    results = json.loads((out / "report.json").read_text())
    assert len(results["arms"]) == 2


def test_its_code_is_pinned_too(copy):
    command = (
        sys.executable,
        "-c",
        "from client.operator.pins import code_digest as d; print(d())",
    )
    before = copy.run(*command)
    assert before.returncode == 0, before.stderr
    file = copy.folder / "nearest_mean" / "client.py"
    file.write_text(file.read_text() + "# edited\n")
    assert copy.run(*command).stdout != before.stdout
