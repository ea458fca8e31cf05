"""The command line as a user types it, on 120 synthetic images whose features are cached."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import client.svm
from common.config import RunConfig
from common.dataset import DIAGNOSES
from common.features import extract
from common.model import LinearModel
from common.splits import TEST
from server.run import METRICS_FILE, MODEL_FILE
from simulations import cli
from simulations.experiment import rounds, with_splits
from simulations.report import SYNTHETIC_NOTE
from tests.sites import QUICK, write_features

HEAVY = {"flwr", "matplotlib", "onnxruntime", "sklearn", "timm", "torch", "torchvision"}

Type = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def config(synthetic_folder, tmp_path_factory) -> RunConfig:
    config = QUICK.model_copy(update={"cache": tmp_path_factory.mktemp("cache")})
    write_features(synthetic_folder, config)
    return config


@pytest.fixture(scope="module")
def settings(config) -> list[str]:
    """Write what the configuration sets as arguments."""
    default = RunConfig().flat()
    return [f"{k}={v}" for k, v in config.flat().items() if v != default[k]]


@pytest.fixture
def fedderm(monkeypatch, capsys) -> Type:
    """Type a command; return its exit code, standard output and standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["fedderm", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return (end.value.code, *capsys.readouterr())

    return run


@pytest.fixture(scope="module")
def finished(synthetic_folder, settings, tmp_path_factory) -> Path:
    """Train in a process of its own; return the folder given to ``--out``."""
    out = tmp_path_factory.mktemp("finished") / "out"
    run = _process("simulate", synthetic_folder, "--out", out, *IID, *settings)
    assert run.returncode == 0, run.stderr
    assert f"run folder: {out / 'run'}" in run.stdout
    return out


IID = ("--scheme", "iid", "--sites", "2")


def _process(*arguments: object) -> subprocess.CompletedProcess[str]:
    code = "from simulations.cli import main; main()"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _metrics(run: Path) -> dict:
    return json.loads((run / METRICS_FILE).read_text())


def _is_one_error(code: int, out: str, err: str) -> bool:
    return code == 1 and out == "" and err.startswith("error: ") and err.count("\n") == 1


def test_settings_are_listed_and_nothing_heavy_is_loaded():
    code = "import sys; from simulations import cli; print(*sys.modules)"
    command = [sys.executable, "-c", code]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert not HEAVY & set(loaded.split())
    listed = _process("settings")
    assert listed.returncode == 0
    lines = listed.stdout.splitlines()
    for line, (key, value) in zip(lines, RunConfig().flat().items(), strict=True):
        assert line.startswith(f"{key}={value} ")
        assert RunConfig.model_fields[key].description in line


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
    metrics = _metrics(out / "run")
    left_out = [f"left out: {site} {why}" for site, why in metrics["data"]["left_out"].items()]
    names = ["all sites", *metrics["sites"], *left_out]
    assert all(line.startswith(name) for line, name in zip(lines, names, strict=True))
    assert len(left_out) == (scheme == "natural")  # its smallest site has four lesions


def test_a_finished_run_started_again_is_one_line(fedderm, synthetic_folder, settings, finished):
    before = (finished / "run" / MODEL_FILE).read_bytes()
    again = fedderm("simulate", synthetic_folder, "--out", finished, *IID, *settings)
    assert _is_one_error(*again)
    assert "holds a finished run" in again[2]
    other = fedderm("simulate", synthetic_folder, "--out", finished, *settings)
    assert _is_one_error(*other)
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

    hinge = client.svm.hinge
    command = ("simulate", synthetic_folder, "--out", tmp_path / "out", *IID, *settings)
    monkeypatch.setattr(client.svm, "hinge", interrupted)
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
    pooled, federated = _metrics(tmp_path / "run"), _metrics(finished / "run")
    assert list(pooled["sites"]) == ["pooled"]
    assert pooled["overall"]["confusion"] == federated["overall"]["confusion"]


def test_compare_judges_every_arm_alike(fedderm, synthetic_folder, settings, tmp_path):
    out = tmp_path / "out"
    command = ("compare", synthetic_folder, "--out", out, "--sites", 2, *settings)
    code, shown, _ = fedderm(*command)
    assert code == 0
    report = (out / "report.md").read_text()
    assert shown == f"{report}\nreport: {out / 'report.md'}\n"
    assert report.splitlines()[2] == SYNTHETIC_NOTE
    values = json.loads((out / "report.json").read_text(), parse_constant=pytest.fail)
    assert values["synthetic"] is True
    arms = {arm["name"]: arm for arm in values["arms"]}
    assert list(arms)[:3] == ["pooled", "natural", "dirichlet"]
    assert list(arms)[3:] == [f"alone-synth_{x}" for x in "abcd"]
    assert all(f"| {name} | " in report for name in arms)
    for name in ("pooled", "dirichlet"):
        quality, metrics = arms[name]["quality"], _metrics(out / "runs" / name)
        assert quality["difference"] < 1e-6
        assert quality["disagreements"] == 0
        # What the sites counted is what the pooled test images say.
        overall = metrics["overall"]
        assert quality["balanced_accuracy"] == pytest.approx(overall["balanced_accuracy"])
        assert quality["macro_auc"] == pytest.approx(overall["macro_auc"], abs=1e-3)
        assert quality["calibration_error"] == pytest.approx(overall["expected_calibration_error"])
        before = metrics["calibration_error_before"]
        assert quality["calibration_error_before"] == pytest.approx(before)
    # A class that a site never saw is no difference of 1e9.
    alone = [arms[f"alone-synth_{x}"]["quality"] for x in "abc"]
    assert all(1e-3 < quality["difference"] < 10 for quality in alone)
    assert all(quality["balanced_accuracy"] < 0.9 for quality in alone)
    # The site with four lesions takes no part, and the report says why.
    assert list(arms["natural"]["left_out"]) == ["synth_d"]
    assert "| natural | 3 of 4 | " in report
    assert "\n- natural: left out synth_d refused: " in report
    assert "| alone-synth_d | 1 | - | " in report
    assert "\n- alone-synth_d: no model. 0 sites are left" in report
    assert _is_one_error(*fedderm(*command))


def test_arms_below_the_quorum_are_reported_and_baselines_have_none(
    fedderm, synthetic_folder, settings, tmp_path
):
    """With a timeout of ten minutes: nobody waits for sites that cannot come."""
    out, rules = tmp_path / "out", ("quorum=3", "expected=3")
    code, shown, _ = fedderm(
        "compare", synthetic_folder, "--out", out, "--sites", 2, *settings, *rules
    )
    assert code == 0
    assert "- dirichlet: no model. " in shown
    assert "has 2 of the 3 sites that are needed" in shown
    arms = {arm["name"]: arm for arm in json.loads((out / "report.json").read_text())["arms"]}
    trained = [name for name, arm in arms.items() if not arm["failure"]]
    assert trained == ["pooled", "natural", *(f"alone-synth_{x}" for x in "abc")]


def test_compare_without_any_model_is_a_report_of_reasons(
    fedderm, synthetic_folder, settings, tmp_path
):
    out = tmp_path / "out"
    rules = (*settings, "min_active=1000")
    code, shown, _ = fedderm("compare", synthetic_folder, "--out", out, "--sites", 2, *rules)
    assert code == 0
    assert shown.count(": no model. 0 sites are left in round 'hinge'") == 7


def test_predict_diagnoses_from_the_run_alone(
    fedderm, synthetic_folder, config, finished, monkeypatch
):
    dataset = with_splits(synthetic_folder, config)
    features = extract(dataset, config.feature_spec, config.cache).predict
    known = {dataset.read(i.image_id): row for i, row in zip(dataset.images, features, strict=True)}
    fake = lambda files, spec: np.stack([known[data] for data in files.values()])  # noqa: E731
    monkeypatch.setattr(cli, "extract_images", fake)
    tested = {
        str(Path(*dataset.files[image.image_id])): image.dx
        for image in dataset.images
        if image.split == TEST
    }
    shown = [fedderm("predict", path, *tested) for path in (finished, finished / "run")]
    assert shown[0] == shown[1] == fedderm("predict", finished / "run" / MODEL_FILE, *tested)
    code, out, err = shown[0]
    assert (code, err) == (0, "")
    correct = []
    for line, (path, dx) in zip(out.splitlines(), tested.items(), strict=True):
        name, _, rest = line.partition(": ")
        diagnosis, *chances, word, distance = rest.split()
        assert name == path
        assert chances[::2] == list(DIAGNOSES)
        assert sum(map(float, chances[1::2])) == pytest.approx(1, abs=0.005)
        assert word == "distance"
        assert 0 < float(distance) < 10
        correct.append(diagnosis == dx)
    assert np.mean(correct) == pytest.approx(_metrics(finished / "run")["overall"]["accuracy"])


def test_predict_names_what_is_no_image_and_no_model(fedderm, synthetic_folder, finished, tmp_path):
    text = tmp_path / "text.jpg"
    text.write_text("no image")
    image = next(synthetic_folder.glob("*/*.jpg"))
    refused = fedderm("predict", finished, image, text)
    assert _is_one_error(*refused)
    assert f"{text}: an image cannot be decoded" in refused[2]
    for model, file in ((finished, tmp_path / "none.jpg"), (tmp_path, image), (text, image)):
        refused = fedderm("predict", model, file)
        assert _is_one_error(*refused)
        assert str(file if model == finished else model) in refused[2]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["colour=red"], "unknown configuration key 'colour' with value 'red'; known are"),
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
    assert _is_one_error(*refused)
    assert reason in refused[2]


@pytest.mark.parametrize("command", ["simulate", "centralized", "compare", "features"])
def test_a_folder_that_is_not_there_is_one_line(fedderm, command, tmp_path):
    out = [] if command == "features" else ["--out", tmp_path / "out"]
    refused = fedderm(command, tmp_path / "none", *out)
    assert _is_one_error(*refused)
    assert str(tmp_path / "none") in refused[2]
    assert not (tmp_path / "out").exists()


def test_foreign_files_stay_as_they_are(fedderm, synthetic_folder, settings, tmp_path):
    (tmp_path / "run" / "journal").mkdir(parents=True)
    (tmp_path / "run" / "journal" / "mine.txt").write_text("mine")
    for command in ("simulate", "compare"):
        refused = fedderm(command, synthetic_folder, "--out", tmp_path, *settings)
        assert _is_one_error(*refused)
        assert "is not an empty folder" in refused[2]
    assert (tmp_path / "run" / "journal" / "mine.txt").read_text() == "mine"


def test_a_comparison_without_test_lesions_is_one_line(
    fedderm, synthetic_folder, settings, tmp_path
):
    out = ("--out", tmp_path / "out")
    refused = fedderm("compare", synthetic_folder, *out, *settings, "test_fraction=0")
    assert _is_one_error(*refused)
    assert "raise test_fraction" in refused[2]


def test_a_file_of_settings_gives_way_to_the_command_line(
    fedderm, synthetic_folder, config, tmp_path
):
    file = tmp_path / "settings.toml"
    file.write_text(
        f'cache = "{config.cache}"\nviews = 1\npredictions = 1\nfolds = 2\nhead = "svm"\n'
    )
    command = ("centralized", synthetic_folder, "--out", tmp_path / "out", "--config", file)
    code, _, err = fedderm(*command, "head=ridge")
    assert (code, err) == (0, "")
    run = json.loads((tmp_path / "out" / "run" / "config.json").read_text())
    assert (run["head"], run["folds"]) == ("ridge", 2)
    assert LinearModel.load(tmp_path / "out" / "run" / MODEL_FILE).config.head == "ridge"
