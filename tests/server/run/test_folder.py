"""A run folder holds all that a run was and came to, and a run that was cut short goes on."""

import json
import subprocess
import sys

import pytest

from common.config.run import RunConfig
from common.errors import ConfigError
from common.models.linear import LinearModel
from server.run.expected import EXPECTED_FILE
from server.run.folder import (
    CARD_FILE,
    CONFIG_FILE,
    METRICS_FILE,
    MODEL_FILE,
    ROUNDS_FILE,
    RunFolder,
)
from server.run.progress import TRAINING_FILE
from simulations.runtimes.experiment import rounds, simulate
from tests.sites import make_quick_sites

SITES = ["site_00", "site_01"]
FILES = {CARD_FILE, CONFIG_FILE, EXPECTED_FILE, METRICS_FILE, MODEL_FILE, ROUNDS_FILE}
FILES |= {TRAINING_FILE}


@pytest.fixture(scope="module")
def config(synthetic_folder, tmp_path_factory) -> RunConfig:
    """Two sites."""
    return make_quick_sites(synthetic_folder, tmp_path_factory.mktemp("sites"), len(SITES))


@pytest.fixture(scope="module")
def finished(config, tmp_path_factory) -> RunConfig:
    """Run to the end, undisturbed."""
    run = config.model_copy(update={"out": tmp_path_factory.mktemp("runs") / "finished"})
    simulate(run)
    return run


def test_the_same_configuration_gives_the_same_model_bit_for_bit(config, finished, tmp_path):
    run = config.model_copy(update={"out": tmp_path / "run"})
    simulate(run)
    assert (run.out / MODEL_FILE).read_bytes() == (finished.out / MODEL_FILE).read_bytes()
    assert (run.out / METRICS_FILE).read_bytes() == (finished.out / METRICS_FILE).read_bytes()


def test_the_folder_holds_the_whole_run(config, finished):
    assert {file.name for file in finished.out.iterdir()} == FILES
    start = json.loads((finished.out / CONFIG_FILE).read_text())
    assert start["seed"] == 0
    assert start["versions"].keys() >= {"python", "fedderm", "flwr", "numpy"}
    log = rounds(finished.out)
    assert [entry["round"] for entry in log] == list(range(1, len(log) + 1))
    questions = [entry["question"] for entry in log]
    assert questions[:3] == ["join", "moments", "prepare"]
    assert questions[-1] == "close"
    assert all(entry["answered"] == SITES and not entry["faults"] for entry in log)
    hinge = [entry for entry in log if entry["question"] == "hinge"]
    assert all(entry["bytes_down"] > 0 and entry["bytes_up"] > 0 for entry in hinge)
    assert all(entry["seconds"] >= 0 for entry in log)
    # What the sites kept for the run is gone.
    assert not any((config.cache / "scratch").iterdir())


def test_metrics_are_overall_and_per_site_and_valid_json(finished):
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    metrics = json.loads((finished.out / METRICS_FILE).read_text(), parse_constant=refuse)
    assert sorted(metrics["sites"]) == SITES
    assert metrics["overall"]["n"] == sum(site["n"] for site in metrics["sites"].values())
    assert metrics["data"]["synthetic"] is True
    assert metrics["data"]["sites"]["site_00"]["images"] > 0
    assert 0 < metrics["overall"]["balanced_accuracy"] <= 1


def test_what_is_not_a_number_is_null(config, tmp_path):
    folder = RunFolder(config.model_copy(update={"out": tmp_path / "run"}))
    folder.write_json("x.json", {"auc": float("nan"), "loss": [float("inf")]})
    assert json.loads((folder.path / "x.json").read_text()) == {"auc": None, "loss": [None]}


def test_the_card_says_what_it_is_and_is_not(finished):
    card = (finished.out / CARD_FILE).read_text()
    assert card.startswith("**SYNTHETIC")
    for text in ("Not a medical device", "| site_01 |", "melanoma", "balanced accuracy"):
        assert text in card


def test_the_model_says_nothing_of_the_coordinators_folders(config, finished):
    assert str(config.sites.parent).encode() not in (finished.out / MODEL_FILE).read_bytes()
    assert LinearModel.load(finished.out / MODEL_FILE).config.views == config.views


def test_a_finished_run_started_again_stays_as_it_is(finished, caplog):
    before = {file: file.read_bytes() for file in finished.out.iterdir()}
    assert simulate(finished) == json.loads((finished.out / METRICS_FILE).read_text())
    assert "holds this run, finished before; for another one, name a new folder" in caplog.text
    with pytest.raises(ConfigError, match="a finished run whose seed is 0, not 1;") as refusal:
        simulate(finished.model_copy(update={"seed": 1}))
    assert "\n" not in str(refusal.value)
    assert {file: file.read_bytes() for file in finished.out.iterdir()} == before


def test_a_run_without_a_folder_is_refused(config):
    with pytest.raises(ConfigError, match="name a new folder"):
        RunFolder(config)


KILLED = """
import os, signal, sys
from pathlib import Path
from client.methods import svm
from common.config.run import RunConfig
from simulations.runtimes.experiment import simulate

answers, answer = 0, svm.hinge

def killed(*arguments):
    global answers
    answers += 1
    if answers == int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)
    return answer(*arguments)

svm.hinge = killed
simulate(RunConfig.model_validate_json(sys.argv[2]))
"""


def test_a_killed_run_goes_on_and_gives_the_same_model(config, finished, tmp_path):
    run = config.model_copy(update={"out": tmp_path / "run"})
    asked = sum(entry["question"] == "hinge" for entry in rounds(finished.out))
    # Killed twice, while a site computes: before its first sum, and later between two sites.
    for answer in (1, asked):
        command = [sys.executable, "-c", KILLED, str(answer), run.model_dump_json()]
        assert subprocess.run(command, check=False).returncode == -9
        assert not (run.out / MODEL_FILE).exists()
    # A line that the crash cut short.
    with (run.out / ROUNDS_FILE).open("a") as log:
        log.write('{"round": 9, "quest')
    with pytest.raises(ConfigError, match="unfinished run whose seed is 0, not 1; start it as it"):
        simulate(run.model_copy(update={"seed": 1}))
    simulate(run)
    assert (run.out / MODEL_FILE).read_bytes() == (finished.out / MODEL_FILE).read_bytes()
    assert (run.out / METRICS_FILE).read_bytes() == (finished.out / METRICS_FILE).read_bytes()
    assert {file.name for file in run.out.iterdir()} == FILES
    assert not any((config.cache / "scratch").iterdir())
    log = rounds(run.out)
    assert [entry["round"] for entry in log] == list(range(1, len(log) + 1))
    # Every sum was asked for once, but for those of the rounds that were cut short.
    assert sum(entry["question"] == "hinge" for entry in log) == asked
    assert sum(entry["question"] == "moments" for entry in log) == 1
    assert sum(entry["question"] == "join" for entry in log) == 3
