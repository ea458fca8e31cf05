"""The command line as a user types it, on 120 synthetic images whose features are cached."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import client.methods.svm
from common.data.splits import TEST
from common.models.linear import LinearModel
from common.synthetic_note import SYNTHETIC_NOTE
from common.text import printable
from server.run.folder import MODEL_FILE
from simulations.cli.main import PROGRESS_LOGGERS
from simulations.runtimes.experiment import rounds, with_splits
from tests.commands import IID, is_one_error, metrics_of

HEAVY = {"flwr", "matplotlib", "onnxruntime", "sklearn", "timm", "torch", "torchvision"}


def test_nothing_heavy_is_loaded_with_the_command_line():
    code = "import sys; from simulations.cli import main; print(*sys.modules)"
    command = [sys.executable, "-c", code]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert not HEAVY & set(loaded.split())


@pytest.mark.parametrize("name", PROGRESS_LOGGERS)
def test_a_logger_of_progress_is_a_module(name):
    assert find_spec(name) is not None


def test_features_that_are_there_are_counted(fedderm, synthetic_folder, settings):
    code, out, err = fedderm("features", synthetic_folder, *settings)
    assert (code, err) == (0, "")
    assert out.startswith("120 images, 2 views of 96 features each")


@pytest.mark.parametrize("scheme", ["natural", "folders"])
def test_simulate_names_every_site(fedderm, synthetic_folder, settings, scheme, tmp_path):
    data, out = synthetic_folder, tmp_path / "out"
    if scheme == "folders":
        data = tmp_path / "sites"
        splits = ("--test-fraction", 0.3, "--folds", 2)
        fedderm("data", "partition", synthetic_folder, "--out", data, *IID, *splits, "--link")
    code, shown, _ = fedderm("simulate", data, "--out", out, "--scheme", scheme, *settings)
    assert code == 0
    note, _, *lines, last = shown.splitlines()
    assert note == SYNTHETIC_NOTE
    assert last == f"run folder: {out / 'run'}"
    metrics = metrics_of(out / "run")
    left_out = [f"left out: {site} {why}" for site, why in metrics["data"]["left_out"].items()]
    names = ["all sites", *metrics["sites"], *metrics["data"]["differing"], *left_out]
    assert all(line.startswith(name) for line, name in zip(lines, names, strict=True))
    assert len(left_out) == (scheme == "natural")  # its smallest site has four lesions


def test_a_finished_run_started_again_stays_as_it_is(
    fedderm, synthetic_folder, settings, finished, caplog
):
    before = (finished / "run" / MODEL_FILE).read_bytes()
    code, shown, _ = fedderm("simulate", synthetic_folder, "--out", finished, *IID, *settings)
    assert (code, shown.splitlines()[-1]) == (0, f"run folder: {finished / 'run'}")
    assert "finished before" in caplog.text
    changed = fedderm(
        "simulate", synthetic_folder, "--out", finished, *IID, *settings, "tolerance=1e-3"
    )
    assert is_one_error(*changed)
    assert "holds a finished run whose tolerance is" in changed[2]
    other = fedderm("simulate", synthetic_folder, "--out", finished, *settings)
    assert is_one_error(*other)
    assert "holds another partition" in other[2]
    assert (finished / "run" / MODEL_FILE).read_bytes() == before


def test_an_interrupted_run_goes_on(
    fedderm, synthetic_folder, settings, finished, tmp_path, monkeypatch
):
    asked = 0

    def interrupted(*arguments):
        nonlocal asked
        asked += 1
        if asked == 9:
            raise KeyboardInterrupt
        return hinge(*arguments)

    hinge = client.methods.svm.hinge
    command = ("simulate", synthetic_folder, "--out", tmp_path / "out", *IID, *settings)
    monkeypatch.setattr(client.methods.svm, "hinge", interrupted)
    code, _, err = fedderm(*command)
    assert code != 0
    assert "Traceback" not in err
    assert not (tmp_path / "out" / "run" / MODEL_FILE).exists()
    code, _, err = fedderm(*command)
    assert (code, err) == (0, "")
    model = (tmp_path / "out" / "run" / MODEL_FILE).read_bytes()
    assert model == (finished / "run" / MODEL_FILE).read_bytes()
    # Of two sites; only the answer that was interrupted had to be asked for again.
    whole = sum(entry["question"] == "hinge" for entry in rounds(finished / "run"))
    assert asked == 2 * whole + 1


def test_centralized_is_the_federation_of_the_same_images(
    fedderm, synthetic_folder, settings, finished, tmp_path
):
    code, shown, err = fedderm("centralized", synthetic_folder, "--out", tmp_path, *settings)
    assert (code, err) == (0, "")
    assert shown.splitlines()[3].startswith("pooled ")
    pooled, federated = metrics_of(tmp_path / "run"), metrics_of(finished / "run")
    assert list(pooled["sites"]) == ["pooled"]
    assert pooled["overall"]["confusion"] == federated["overall"]["confusion"]


@pytest.mark.usefixtures("features_at_hand")
@pytest.mark.parametrize("kind", ["finished", "tuned"])
def test_predict_gives_the_figures_of_the_run(fedderm, synthetic_folder, cached, kind, request):
    run = request.getfixturevalue(kind)
    dataset = with_splits(synthetic_folder, cached)
    tested = {
        str(Path(*dataset.files[i.image_id])): i.dx for i in dataset.images if i.split == TEST
    }
    shown = [fedderm("predict", path, *tested, "--json") for path in (run, run / "run")]
    assert shown[0] == shown[1] == fedderm("predict", run / "run" / MODEL_FILE, *tested, "--json")
    code, out, err = shown[0]
    assert (code, err) == (0, "")
    answers = json.loads(out)
    assert [answer["image"] for answer in answers] == list(tested)
    right = [answer["stands_out"] == tested[answer["image"]] for answer in answers]
    assert np.mean(right) == pytest.approx(metrics_of(run / "run")["overall"]["accuracy"])
    for answer in answers:
        assert answer["diagnosis"] == next(iter(answer["probabilities"]))
        assert sum(answer["probabilities"].values()) == pytest.approx(1)


@pytest.mark.usefixtures("features_at_hand")
@pytest.mark.parametrize("kind", ["finished", "tuned"])
def test_predict_names_what_is_no_image_and_no_model(
    fedderm, synthetic_folder, kind, tmp_path, request
):
    run, text = request.getfixturevalue(kind), tmp_path / "text.jpg"
    text.write_text("no image")
    image = next(synthetic_folder.glob("*/*.jpg"))
    # The others are answered.
    code, out, err = fedderm("predict", run, text, tmp_path / "none.jpg", image)
    assert (code, err) == (1, "")
    assert f"{text}: no answer: no JPEG" in out
    assert f"{tmp_path / 'none.jpg'}: no answer: cannot be read" in out
    assert f"{image}\n  " in out
    for model in (tmp_path, text):
        refused = fedderm("predict", model, image)
        assert is_one_error(*refused)
        assert str(model) in refused[2]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["zebra=red"], "unknown key 'zebra' with value 'red'; known are"),
        (["seed=-1"], "key 'seed' is '-1': Input should be greater than or equal to 0"),
        (["c=1e-4,x"], "key 'c' is 'x'"),
        (["seed"], "'seed' is no setting; write key=value"),
        (["out=elsewhere"], "'out' is no setting here"),
        (["--config", "broken.toml"], "broken.toml is no TOML file"),
        (["--config", "absent.toml"], "absent.toml"),
        (["--scheme", "iid"], "the number of sites is None; iid needs 1 or more"),
        (["--scheme", "iid", "--sites", "1000"], "ask for at most 90"),
        (["quorum=9"], "4 of the 9 sites that are needed"),
        (["--out", "broken.toml"], "cannot be a folder"),
    ],
)
def test_a_mistake_is_one_line(
    fedderm, synthetic_folder, settings, arguments, reason, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    Path("broken.toml").write_text("seed = [")
    refused = fedderm("simulate", synthetic_folder, "--out", "out", *settings, *arguments)
    assert is_one_error(*refused)
    assert reason in refused[2]


@pytest.mark.parametrize("name", ["a|b", "<b>", "a\nerror: b", "a\x1b[2J", "all sites", ".git"])
def test_a_folder_that_can_be_no_site_ends_the_run_before_it_begins(
    fedderm, synthetic_folder, settings, tmp_path, name
):
    data = tmp_path / "sites"
    fedderm("data", "partition", synthetic_folder, "--out", data, *IID, "--link")
    (data / "site_01").rename(data / name)
    command = ("simulate", data, "--out", tmp_path / "out", "--scheme", "folders", *settings)
    refused = fedderm(*command)
    assert is_one_error(*refused)
    assert f"the folder '{printable(name)}' has no name that a site may have" in refused[2]
    assert not (tmp_path / "out").exists()


def test_an_odd_path_in_a_file_of_settings_is_one_line(fedderm, synthetic_folder, tmp_path):
    file = tmp_path / "settings.toml"
    file.write_text('cache = "a\\u0000b"')
    refused = fedderm("features", synthetic_folder, "--config", file)
    assert is_one_error(*refused)
    assert "'cache' is 'a\\x00b'" in refused[2]


@pytest.mark.parametrize("command", ["simulate", "centralized", "compare", "features"])
def test_a_folder_that_is_not_there_is_one_line(fedderm, command, tmp_path):
    out = [] if command == "features" else ["--out", tmp_path / "out"]
    refused = fedderm(command, tmp_path / "none", *out)
    assert is_one_error(*refused)
    assert str(tmp_path / "none") in refused[2]
    assert not (tmp_path / "out").exists()


def test_foreign_files_stay_as_they_are(fedderm, synthetic_folder, settings, tmp_path):
    (tmp_path / "run" / "journal").mkdir(parents=True)
    (tmp_path / "run" / "journal" / "mine.txt").write_text("mine")
    for command, own in (("simulate", settings), ("compare", [])):
        refused = fedderm(command, synthetic_folder, "--out", tmp_path, *own)
        assert is_one_error(*refused)
        assert "is not an empty folder" in refused[2]
    assert (tmp_path / "run" / "journal" / "mine.txt").read_text() == "mine"


def test_a_file_of_settings_gives_way_to_the_command_line(
    fedderm, synthetic_folder, cached, tmp_path
):
    file = tmp_path / "settings.toml"
    file.write_text(
        f'cache = "{cached.cache}"\nviews = 1\npredictions = 1\nfolds = 2\nhead = "svm"\n'
    )
    command = ("centralized", synthetic_folder, "--out", tmp_path / "out", "--config", file)
    code, _, err = fedderm(*command, "head=ridge")
    assert (code, err) == (0, "")
    run = json.loads((tmp_path / "out" / "run" / "config.json").read_text())
    assert (run["head"], run["folds"]) == ("ridge", 2)
    assert LinearModel.load(tmp_path / "out" / "run" / MODEL_FILE).config.head == "ridge"
