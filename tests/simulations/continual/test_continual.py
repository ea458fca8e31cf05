"""A federation that goes on learning: what arrives when, what is kept, and the exact way."""

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from common.data.dataset import Dataset
from common.models.file import load_model
from server.run.folder import MODEL_FILE
from simulations.cli.read_settings import read_settings
from simulations.continual.report import CHART_FILE, JSON_FILE, MARKDOWN_FILE
from simulations.continual.scenarios import Scenario
from simulations.runtimes.experiment import open_for
from tests.commands import Type, is_one_error
from tests.finetuning import BACKBONE, SIZE, STAGE

LDA = ("head=lda",)


@pytest.fixture
def dataset(synthetic_folder: Path, settings: list[str]) -> Dataset:
    return open_for(read_settings(settings), synthetic_folder)[1]


def figures(out: Path) -> dict:
    return json.loads((out / JSON_FILE).read_text())


@pytest.mark.parametrize("scenario", ["sites", "time", "classes"])
def test_every_lesion_arrives_once_and_whole(scenario, dataset, tmp_path):
    found = Scenario.of(scenario, dataset, tmp_path / "changed", seed=0)
    assert set(found.step) == set(range(len(found.names)))
    for lesion in np.unique(dataset.lesions):
        assert len(set(found.step[dataset.lesions == lesion])) == 1
    for number, task in enumerate(found.tasks):
        arrived = dataset.labels[found.step <= number]
        assert {dataset.task.codes[label] for label in arrived} <= set(task.codes)
    assert found.tasks[-1] == dataset.task


def test_a_changed_camera_changes_the_later_images_of_one_site(dataset, tmp_path):
    found = Scenario.of("drift", dataset, tmp_path / "changed", seed=0)
    for image, step in zip(dataset.images, found.step, strict=True):
        same = dataset.read(image.image_id) == found.dataset.read(image.image_id)
        assert same == (step == 0)
    later = found.dataset.select(np.flatnonzero(found.step == 1))
    assert len(set(later.sources)) == 1
    again = Scenario.of("drift", dataset, tmp_path / "changed", seed=0)
    assert again.dataset.images == found.dataset.images


@pytest.mark.filterwarnings("ignore:y_pred contains classes")
def test_added_sums_are_joint_training_and_figures_are_those_of_scikit_learn(
    fedderm: Type, synthetic_folder, settings, dataset, tmp_path
):
    out = tmp_path / "out"
    command = ("continual", synthetic_folder, "--out", out, *LDA, *settings)
    code, said, error = fedderm(*command)
    assert code == 0, error
    found = figures(out)
    ways = found["ways"]
    assert ways["added"]["matrix"] == ways["joint"]["matrix"]
    assert ways["added"]["minus_joint"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    scenario = Scenario.of("sites", dataset, out / "changed", seed=0)
    assert found["groups"] == list(scenario.names)
    test = dataset.splits == "test"
    for number in (0, len(scenario.names) - 1):
        model = load_model(out / "runs" / f"joint-{number}" / "run" / MODEL_FILE)
        decided = model.basis.decide(model.dataset_scores(dataset, read_settings(settings).cache))
        for group in range(len(scenario.names)):
            chosen = test & (scenario.step == group)
            got = ways["joint"]["matrix"][number][group]
            if not chosen.any():
                assert got is None
                continue
            wanted = balanced_accuracy_score(dataset.labels[chosen], decided[chosen])
            assert got == pytest.approx(wanted)
    assert (out / MARKDOWN_FILE).read_text().strip() == said.strip()
    assert (out / CHART_FILE).read_text().startswith("<?xml")
    written = {file: file.stat().st_mtime_ns for file in out.glob("runs/*/run/*")}
    assert fedderm(*command)[0] == 0
    assert {file: file.stat().st_mtime_ns for file in out.glob("runs/*/run/*")} == written


def test_diagnoses_are_added_to_an_svm(fedderm: Type, synthetic_folder, settings, tmp_path):
    out = tmp_path / "out"
    command = ("continual", synthetic_folder, "--out", out, "--scenario", "classes", *settings)
    code, _, error = fedderm(*command, "--ways", "warm")
    assert code == 0, error
    matrix = figures(out)["ways"]["warm"]["matrix"]
    assert [[value is None for value in row] for row in matrix] == [
        [group > step for group in range(3)] for step in range(3)
    ]


def test_a_network_goes_on_with_what_is_new_alone(
    fedderm: Type, synthetic_folder, network_file, tmp_path
):
    """Its joint first step is that of all ways; the next ones have their own pace."""
    out = tmp_path / "out"
    network = [f"backbone={BACKBONE}", f"weights={network_file}", f"cache={tmp_path / 'cache'}"]
    pace = ["rounds=1,1,2", "local_epochs=0.5", f"stages=head,{STAGE},all", "batch=16"]
    small = [f"size={SIZE}", "views=1", "predictions=1", "folds=3", "validate_every=1"]
    pace_on = ("--update", "rounds=1", "--update", "local_epochs=1", "--update", "lr=0.001")
    ways = ("--ways", "plain,distillation", *pace_on)
    arguments = ("--scenario", "classes", *ways, "method=finetune", *network, *pace, *small)
    code, _, error = fedderm("continual", synthetic_folder, "--out", out, *arguments)
    assert code == 0, error
    found = figures(out)["ways"]
    assert found.keys() == {"joint", "plain", "distillation"}
    first = {json.dumps(way["matrix"][0]) for way in found.values()}
    assert len(first) == 1
    for way in ("plain", "distillation"):
        for step in (1, 2):
            run = out / "runs" / f"{way}-{step}" / "run"
            assert len((run / "training.jsonl").read_text().splitlines()) == 1
            lineage = json.loads((run / "metrics.json").read_text())["lineage"]
            assert len(lineage["ancestors"]) == step


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("method=private",), "cannot go on from a finished run"),
        (("--ways", "replay"), "unknown way 'replay'"),
        (("--scenario", "sites", "--update", "nothing"), "write key=value"),
    ],
)
def test_nonsense_is_one_line(fedderm: Type, synthetic_folder, tmp_path, arguments, message):
    got = fedderm("continual", synthetic_folder, "--out", tmp_path / "out", *arguments)
    assert is_one_error(*got)
    assert message in got[2]
    assert not (tmp_path / "out").exists()
