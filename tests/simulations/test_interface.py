"""The Python interface does what the commands do; results are tables, models classifiers."""

import json
import os
import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from PIL import Image
from sklearn.metrics import accuracy_score, get_scorer

import fedderm as interface
from common.config.run import RunConfig
from common.data.dataset import Dataset
from common.data.splits import TEST
from common.errors import ConfigError, DataError
from common.methods import METHODS
from common.task import HAM10000
from server.run.folder import MODEL_FILE
from simulations.cli.settings import settings_text
from simulations.runtimes.experiment import rounds
from tests.commands import metrics_of
from tests.finetuning import BACKBONE, SIZE

ROOT = Path(__file__).parents[2]
HEAVY = {"flwr", "matplotlib", "onnxruntime", "pandas", "sklearn", "timm", "torch", "torchvision"}
RUNS = {
    "svm": {"levels": 0, "components": 48, "c": [1e-4], "tolerance": 1e-3, "min_active": 1},
    "finetune": {"method": "finetune", "stages": ["head"], "rounds": 2, "local_epochs": (1.0,)},
}
"""Settings of one run a kind of model, on a small network."""


@pytest.fixture(scope="module")
def network(network_file: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return what all runs set: a small network with random weights, few views."""
    small = {"size": SIZE, "views": 1, "predictions": 1, "folds": 2, "test_fraction": 0.3}
    cache = tmp_path_factory.mktemp("cache")
    return {"backbone": BACKBONE, "weights": network_file, "cache": cache, **small}


@pytest.fixture(scope="module", params=RUNS)
def run(request, synthetic_folder, network, tmp_path_factory) -> interface.Run:
    """Train over two sites."""
    out = tmp_path_factory.mktemp(request.param) / "out"
    settings = {**network, **RUNS[request.param]}
    return interface.simulate(synthetic_folder, out, scheme="iid", sites=2, **settings)


@pytest.fixture(scope="module")
def model(run: interface.Run, network_file: Path) -> interface.Classifier:
    return interface.load_model(run.folder, weights=network_file)


@pytest.fixture(scope="module")
def images(synthetic_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Write some images of the data as PNG files."""
    folder = tmp_path_factory.mktemp("png")
    files = [folder / f"{file.stem}.png" for file in sorted(synthetic_folder.glob("*/*.jpg"))[:6]]
    for file in files:
        Image.open(next(synthetic_folder.glob(f"*/{file.stem}.jpg"))).save(file)
    return files


def pixels_of(file: Path) -> np.ndarray:
    return np.asarray(Image.open(file).convert("RGB"))


def python(*arguments: str, folder: Path = ROOT) -> str:
    """Run Python where the interface is found; return what it prints."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_nothing_heavy_is_loaded_with_the_interface():
    loaded = python("-c", "import sys; import fedderm; print(*sys.modules)")
    assert not HEAVY & set(loaded.split())


def test_the_module_is_the_command_line():
    assert python("-m", "fedderm", "settings", "svm") == f"{settings_text(METHODS['svm'])}\n"


def test_a_run_is_what_its_folder_says(run):
    metrics = metrics_of(run.folder)
    assert run.method == json.loads((run.folder / "config.json").read_text())["method"]
    assert run.synthetic
    for site, shown in [("all sites", run.overall), *((each.site, each) for each in run.sites)]:
        written = metrics["overall"] if site == "all sites" else metrics["sites"][site]
        row = asdict(shown)
        assert row.pop("site") == site
        assert row == {name: written[name] for name in row}
    assert [(each.diagnosis, each.name) for each in run.classes] == list(
        zip(HAM10000.codes, HAM10000.names, strict=True)
    )
    assert [each.n for each in run.classes] == [sum(row) for row in run.confusion]
    for each in run.classes:
        for name, value in metrics["overall"]["per_class"][each.diagnosis].items():
            expected = np.nan if value is None else value
            np.testing.assert_equal(getattr(each, name), expected)
    assert (run.left_out, run.training) == (metrics["data"]["left_out"], metrics["training"])
    log = rounds(run.folder)
    assert [(each.round, each.question, each.bytes_up) for each in run.rounds] == [
        (line["round"], line["question"], line["bytes_up"]) for line in log
    ]
    assert {each.answered for each in run.rounds} == {2}
    assert [line["round"] for line in run.learning] == list(range(1, len(run.learning) + 1))
    assert pandas.DataFrame(run.learning)["loss"].notna().all()
    assert interface.Run.read(run.folder) == interface.Run.read(run.folder.parent) == run


def test_results_are_tables(run, synthetic_folder, network):
    whole = pandas.DataFrame([run.overall, *run.sites]).set_index("site")
    assert whole["n"]["all sites"] == whole["n"].drop("all sites").sum()
    classes = pandas.DataFrame(run.classes).set_index("diagnosis")
    assert list(classes.index) == list(HAM10000.codes)
    assert classes["sensitivity"].mean() == pytest.approx(run.overall.balanced_accuracy)
    assert pandas.DataFrame(run.rounds)["seconds"].min() >= 0
    places = {"weights": network["weights"], "cache": network["cache"]}
    evaluation = interface.evaluate(synthetic_folder, run, run.folder.parent, **places)
    table = pandas.DataFrame(evaluation.runs)
    assert list(table["run"]) == [str(run.folder), str(run.folder.parent)]
    assert evaluation.images == run.overall.n
    assert list(table["balanced_accuracy"]) == pytest.approx([run.overall.balanced_accuracy] * 2)
    assert (table["macro_auc_low"] <= table["macro_auc_high"]).all()
    assert table["balanced_accuracy_gap"].isna().tolist() == [True, False]
    assert table["balanced_accuracy_gap_high"][1] == 0
    sites = pandas.DataFrame(evaluation.sites)
    assert sites.groupby("run")["lesions"].sum().tolist() == [evaluation.lesions] * 2
    assert evaluation.groups == ()
    every = interface.evaluate(
        synthetic_folder, run, every_lesion=True, trained="leave-out", **places
    )
    assert every.runs[0].balanced_accuracy == evaluation.runs[0].balanced_accuracy
    assert every.selection.left_out == 120 - every.images


def test_groups_are_those_of_the_command(fedderm, run, synthetic_folder, network, tmp_path):
    places = {"weights": network["weights"], "cache": network["cache"]}
    by = ["sex", "age:40,60"]
    table = pandas.DataFrame(interface.evaluate(synthetic_folder, run, by=by, **places).groups)
    options = [f"cache={places['cache']}", "--weights", places["weights"], "--by", ",".join(by)]
    out = tmp_path / "figures.json"
    arguments = ["evaluate", synthetic_folder, run.folder, *options]
    assert fedderm(*arguments, "--out", out)[0] == 0
    told = json.loads(out.read_text())["runs"][0]["by_group"]["groups"]
    expected = [
        [*g["metrics"][m], *g["gaps"][m].values(), *g["standardised"][m].values()]
        for g in told
        for m in g["metrics"]
    ]
    names = [(g["dimension"], g["group"], m) for g in told for m in g["metrics"]]
    assert list(table[["dimension", "group", "metric"]].itertuples(index=False, name=None)) == names
    np.testing.assert_array_equal(table.loc[:, "value":], np.array(expected, dtype=float))
    assert table["value"].notna().any()
    with pytest.raises(ConfigError, match="no groups by 'hair'"):
        interface.evaluate(synthetic_folder, run, by="hair", **places)


def test_the_same_settings_give_the_model_of_the_command(
    fedderm, synthetic_folder, cached, settings, finished, tmp_path
):
    """As Python values, NumPy's too; what pooled data give is then shown by the command."""
    default = RunConfig().model_dump()
    given = {k: v for k, v in cached.model_dump().items() if v != default[k]}
    given |= {"c": np.array(given["c"]), "views": np.int64(given["views"])}
    run = interface.simulate(synthetic_folder, tmp_path / "out", scheme="iid", sites=2, **given)
    models = (run.folder / MODEL_FILE, finished / "run" / MODEL_FILE)
    assert models[0].read_bytes() == models[1].read_bytes()
    pooled = interface.centralized(synthetic_folder, tmp_path / "pooled", **given)
    assert [each.site for each in pooled.sites] == ["pooled"]
    assert pooled.confusion == run.confusion
    code, shown, _ = fedderm(
        "centralized", synthetic_folder, "--out", tmp_path / "pooled", *settings
    )
    assert (code, shown.splitlines()[-1]) == (0, f"run folder: {pooled.folder}")


@pytest.mark.parametrize(
    ("scheme", "settings", "reason"),
    [
        ("iid", {"zebra": "red"}, "unknown key 'zebra' with value 'red'"),
        ("iid", {"seed": -1}, "key 'seed' is -1: Input should be greater than or equal to 0"),
        ("iid", {"c": [1e-4, "x"]}, "key 'c' is 'x'"),
        ("iid", {"lr": 0.1}, "'lr' is 0.1, but method svm does not use it"),
        ("iid", {"epsilon": 1.0}, "set method=private"),
        ("iid", {}, "the number of sites is None; iid needs 1 or more"),
        ("dirichelt", {}, "unknown scheme 'dirichelt'; did you mean 'dirichlet'?"),
    ],
)
def test_a_mistake_is_one_line(synthetic_folder, tmp_path, scheme, settings, reason):
    with pytest.raises(interface.FedDermError, match=re.escape(reason)) as refusal:
        interface.simulate(synthetic_folder, tmp_path / "out", scheme=scheme, **settings)
    assert "\n" not in str(refusal.value)
    assert isinstance(refusal.value, ConfigError)
    assert not (tmp_path / "out").exists()


def test_places_are_no_settings_and_runs_must_be_there(synthetic_folder, tmp_path):
    with pytest.raises(ConfigError, match="'sites' is no setting here"):
        interface.centralized(synthetic_folder, tmp_path / "out", sites=4)
    with pytest.raises(ConfigError, match="no run to evaluate"):
        interface.evaluate(synthetic_folder)
    for function in (interface.load_model, interface.Run.read):
        with pytest.raises(DataError, match="holds no finished run"):
            function(tmp_path)
    (tmp_path / MODEL_FILE).touch()
    with pytest.raises(DataError, match="is no folder of a run, or was changed"):
        interface.Run.read(tmp_path)


def test_predictions_are_those_of_the_command(fedderm, run, model, images, network_file):
    code, shown, err = fedderm("predict", run.folder, *images, "--json", "--weights", network_file)
    assert (code, err) == (0, "")
    told = json.loads(shown)
    assert [each["diagnosis"] for each in told] == model.predict(images).tolist()
    chances = [[each["probabilities"][dx] for dx in model.task.codes] for each in told]
    np.testing.assert_allclose(chances, model.predict_proba(images), atol=1e-6)
    answers = interface.predict(run, images, weights=network_file)
    for answer, each in zip(answers, told, strict=True):
        assert json.loads(json.dumps(asdict(answer)["prediction_set"])) == each["prediction_set"]


def test_pixels_are_diagnosed_as_their_files(model, images):
    whole = model.diagnose(images)
    assert whole.probabilities.shape == (len(images), len(model.task.codes))
    assert whole.probabilities.sum(axis=1) == pytest.approx(1)
    pixels = [pixels_of(file) for file in images]
    for given in (pixels, np.stack(pixels), [*pixels[:2], *map(str, images[2:])]):
        for part, expected in zip(model.diagnose(given), whole, strict=True):
            np.testing.assert_array_equal(part, expected)
    # One alone; one twice, in any order. Of fewer images the last digits are others.
    for given in (images[1], pixels[1]):
        one = model.predict_proba(given)
        np.testing.assert_allclose(one, whole.probabilities[1:2], atol=1e-6)
    twice = model.predict_proba(np.array([str(images[k]) for k in (3, 0, 3)]))
    np.testing.assert_allclose(twice, whole.probabilities[[3, 0, 3]], atol=1e-6)
    np.testing.assert_array_equal(twice[0], twice[2])


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ([], "there are no images"),
        (np.zeros((8, 8, 3)), "image 0 is float64 (8, 8, 3); an image is a path, or an array"),
        (np.zeros((8, 8), np.uint8), "image 0 is uint8 (8, 8)"),
        ([np.zeros((8, 8, 4), np.uint8)], "image 0 is uint8 (8, 8, 4)"),
        ([np.zeros((8, 8, 3), np.uint8), np.zeros((0, 8, 3), np.uint8)], "image 1 is uint8 (0, 8"),
        (np.zeros((2, 8, 8, 1), np.uint8), "image 0 is uint8 (8, 8, 1)"),
        ([None], "image 0 is NoneType"),
        (3, "image 0 is int"),
        ("none.png", "none.png cannot be read"),
        (["a\0b"], "cannot be read"),
        ([__file__], "an image cannot be decoded"),
    ],
)
def test_what_is_no_image_is_one_line(model, given, reason):
    with pytest.raises(DataError, match=re.escape(reason)) as refusal:
        model.predict(given)
    assert "\n" not in str(refusal.value)


def test_scikit_learn_takes_a_model_for_a_classifier(run, network_file, synthetic_folder):
    dataset = Dataset.open(synthetic_folder)
    sites = [Dataset.open(folder) for folder in (run.folder.parent / "sites").glob("site_*")]
    held_out = {i.image_id for site in sites for i in site.images if i.split == TEST}
    tested = [image for image in dataset.images if image.image_id in held_out]
    files = [str(Path(*dataset.files[image.image_id])) for image in tested]
    truth = [image.dx for image in tested]
    model = interface.load_model(run.folder, rule="balanced", weights=network_file)
    assert accuracy_score(truth, model.predict(files)) == pytest.approx(run.overall.accuracy)
    balanced = get_scorer("balanced_accuracy")(model, files, truth)
    assert balanced == pytest.approx(run.overall.balanced_accuracy)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder to try the documents in; they have data and features in common."""
    return tmp_path_factory.mktemp("desk")


def test_the_document_can_be_typed(desk):
    text = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    [code] = re.findall(r"(?ms)^```python\n(.*?)^```$", text)
    # The log is the user's.
    code += "\nimport logging\nassert not logging.getLogger().handlers"
    assert "balanced_accuracy_gap" in python("-c", code, folder=desk)
    assert set(re.findall(r"(?m)^\| `(?:Run\.)?(\w+)\(", text)) <= {*interface.__all__, "read"}


def test_the_notebook_runs_and_is_kept_without_results(desk):
    notebook = json.loads((ROOT / "docs" / "fedderm.ipynb").read_text(encoding="utf-8"))
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in cells)
    code = "\n".join("".join(cell["source"]) for cell in cells)
    diagnoses = re.findall(r"'(\w+)'", python("-c", code, folder=desk))
    assert len(diagnoses) == 2
    assert set(diagnoses) <= set(HAM10000.codes)


def test_an_answer_needs_no_pytorch_once_its_network_is_kept(run, model, images, network_file):
    model.predict(images[:1])
    code = (
        "import sys\n"
        "from simulations.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    command = [
        sys.executable,
        "-c",
        code,
        "predict",
        run.folder,
        *images,
        "--weights",
        network_file,
    ]
    answered = subprocess.run([*map(str, command)], capture_output=True, text=True, check=True)
    assert str(images[0]) in answered.stdout
    heavy = {"flwr", "matplotlib", "pandas", "scipy", "sklearn", "timm", "torch", "torchvision"}
    assert not heavy & set(answered.stderr.split())
