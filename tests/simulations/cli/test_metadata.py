"""Prediction and evaluation with age, sex and place, by a model that was trained with them."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from common.data.dataset import Dataset
from common.data.splits import TEST
from common.models.file import load_model
from server.run.folder import MODEL_FILE
from simulations.experiments.metadata import main
from simulations.runtimes.experiment import with_splits
from simulations.study.cells import cut, plan
from simulations.study.definition import Study
from simulations.study.judging.predictions import Predictions
from tests.commands import IID, is_one_error
from tests.simulations.conftest import METADATA


@pytest.fixture
def trained(informed) -> Path:
    """Return the run that was trained with metadata."""
    return informed


@pytest.fixture(scope="module")
def tested(synthetic_folder, cached):
    dataset = with_splits(synthetic_folder, cached)
    return dataset.select(dataset.splits == TEST)


def scores(run, dataset, cached):
    """Judge images by the way of evaluations, which reads the rows of their table."""
    model = load_model(run / "run" / MODEL_FILE)
    values = model.dataset_scores(dataset, cached.cache)
    return model.basis.decide(values), model.basis.probabilities(values), model.task


def by_code(answers, key, codes):
    return np.array([[key(answer)[code] for code in codes] for answer in answers])


@pytest.mark.usefixtures("features_at_hand")
def test_a_table_beside_images_gives_the_probabilities_of_an_evaluation(
    fedderm, synthetic_folder, cached, trained, tested
):
    paths = [Path(*tested.files[image.image_id]) for image in tested.images]
    table = synthetic_folder / "HAM10000_metadata.csv"
    code, out, _ = fedderm("predict", trained, *paths, "--metadata", table, "--json")
    assert code == 0
    answers = json.loads(out)
    _, expected, task = scores(trained, tested, cached)
    shown = by_code(answers, lambda answer: answer["probabilities"], task.codes)
    assert shown == pytest.approx(expected, abs=1e-6)
    _, alone, _ = scores(trained, tested.without_metadata(), cached)
    known = [i for i, answer in enumerate(answers) if answer["metadata"]]
    without = by_code(
        [answers[i]["metadata"] for i in known], lambda found: found["probabilities_without"],
        task.codes,
    )  # fmt: skip
    assert without == pytest.approx(alone[known], abs=1e-6)
    assert np.abs(expected - alone).max() > 1e-3
    for image, answer in zip(tested.images, answers, strict=True):
        if answer["metadata"]:
            assert answer["metadata"]["used"].get("age") == image.age


@pytest.mark.usefixtures("features_at_hand")
def test_options_hold_for_all_images_and_a_model_without_metadata_says_so(
    fedderm, synthetic_folder, trained, finished
):
    images = sorted(synthetic_folder.glob("*/*.jpg"))[:2]
    said = ("--age", 45, "--sex", "female", "--place", "back")
    code, out, err = fedderm("predict", trained, *images, *said, "--json")
    assert (code, err) == (0, "")
    used = {"age": 45.0, "sex": "female", "localization": "back"}
    assert [answer["metadata"]["used"] for answer in json.loads(out)] == [used, used]
    plain, given = (
        json.loads(fedderm("predict", finished, *images, *more, "--json")[1]) for more in ((), said)
    )
    note = "The model does not use age and sex and localization: it answers without."
    assert [answer.pop("notes")[-1] for answer in given] == [note, note]
    assert given == [{k: v for k, v in answer.items() if k != "notes"} for answer in plain]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--age", "450"], "the age is '450'; give years from 0 to 120"),
        (["--sex", "femal"], "did you mean 'female'?"),
        (["--localization", "leg"], "the place is 'leg'; write one of abdomen"),
        (["--site", "back"], "'back' is no training site; for the place on the body write --place"),
        (["--age", "4", "--metadata", "t.csv"], "choose one of them"),
        (["--metadata", "none.csv"], "none.csv is not there; name a table"),
    ],
)
def test_a_mistake_is_one_line(fedderm, synthetic_folder, trained, arguments, reason):
    image = next(synthetic_folder.glob("*/*.jpg"))
    refused = fedderm("predict", trained, image, *arguments)
    assert is_one_error(*refused)
    assert reason in refused[2]


def test_an_evaluation_judges_runs_without_metadata_too(
    fedderm, synthetic_folder, cached, trained, finished, tested, tmp_path
):
    file, cache = tmp_path / "figures.json", f"cache={cached.cache}"
    names = [str(finished), str(trained), f"{trained} (without metadata)"]
    code, shown, _ = fedderm(
        "evaluate", synthetic_folder, *names[:2], cache, "--without-metadata", "--out", file
    )
    assert code == 0
    found = {run["run"]: run for run in json.loads(file.read_text())["runs"]}
    assert list(found) == names
    assert names[2] in shown
    for name, dataset in ((names[1], tested), (names[2], tested.without_metadata())):
        labels, _, _ = scores(trained, dataset, cached)
        quality = found[name]["quality"]
        expected = balanced_accuracy_score(tested.labels, labels)
        assert quality["balanced_accuracy"] == pytest.approx(expected)


@pytest.mark.usefixtures("features_at_hand")
def test_a_place_that_the_model_does_not_know_is_said(fedderm, synthetic_folder, trained, tmp_path):
    """One of a table that is in no list, and a listed one that no training site had."""
    images = sorted(synthetic_folder.glob("*/*.jpg"))[:3]
    places, table = ("Elbow", "acral", "back"), tmp_path / "t.csv"
    rows = zip(images, places, ("female", "divers", "male"), strict=True)
    lines = [f"{image.name},{place},{sex}" for image, place, sex in rows]
    table.write_text("\n".join(["image_id,localization,sex", *lines]))
    said = {
        0: ["Place 'elbow' is none of the model's places and counts as not known."],
        1: [
            "Place 'acral' is none of the model's places and counts as not known.",
            "Sex 'divers' is none of the model's sexes and counts as not known.",
        ],
        2: [],
    }
    asked = ("predict", trained, *images, "--metadata", table)
    found = json.loads(fedderm(*asked, "--json")[1])
    for number, answer in enumerate(found):
        assert answer["notes"][-len(said[number]) or len(answer["notes"]) :] == said[number]
    used = [answer["metadata"] and answer["metadata"]["used"] for answer in found]
    assert used == [{"sex": "female"}, None, {"sex": "male", "localization": "back"}]
    page = tmp_path / "page.html"
    assert fedderm(*asked, "--html", page)[0] == 0
    for text in (fedderm(*asked)[1], fedderm(*asked, "--csv")[1], page.read_text()):
        words = " ".join(text.replace("&#39;", "'").split())
        for note in (*said[0], *said[1]):
            assert note in words


@pytest.mark.usefixtures("features_at_hand")
def test_a_private_model_answers_with_and_without(
    fedderm, synthetic_folder, settings, cached, tested, tmp_path
):
    used = {"seed", "test_fraction", "views", "predictions", "folds", "cache"}
    own = [each for each in settings if each.partition("=")[0] in used]
    private = ("method=private", "epsilon=8", "steps=5", "components=16", METADATA)
    code, _, err = fedderm(
        "simulate", synthetic_folder, "--out", tmp_path / "run", *IID, *own, *private
    )
    assert code == 0, err
    run, image = tmp_path / "run", tested.images[0]
    path, patient = Path(*tested.files[image.image_id]), ("--age", 45, "--place", "back")
    [answer] = json.loads(fedderm("predict", run, path, *patient, "--json")[1])
    assert answer["metadata"]["used"] == {"age": 45, "localization": "back"}
    for named, shown in (
        (replace(image, age=45.0, sex="", localization="back"), answer["probabilities"]),
        (
            replace(image, age=None, sex="", localization=""),
            answer["metadata"]["probabilities_without"],
        ),
    ):
        _, expected, task = scores(run, replace(tested.select([0]), images=(named,)), cached)
        assert [shown[code] for code in task.codes] == pytest.approx(expected[0], abs=1e-6)


def test_a_studys_cells_are_judged_without_metadata_too(
    synthetic_folder, cached, trained, tmp_path, capsys
):
    routes = {"known": {"method": "svm", "metadata": ["age", "sex", "localization"]}}
    study = Study.model_validate(
        {"routes": routes, "spreads": {"pooled": {"scheme": "pooled"}}, "folds": 2}
        | {"views": cached.views, "arms": [{"route": "known", "spreads": ["pooled"]}]}
    )
    dataset, model = Dataset.open(synthetic_folder), load_model(trained / "run" / MODEL_FILE)
    expected: dict[bool, list[float]] = {False: [], True: []}
    for cell in plan(study, dataset):
        folder = tmp_path / "cells" / f"known_pooled_fold_{cell.fold}"
        shutil.copytree(trained / "run", folder / "run")
        job = {"data": str(synthetic_folder), "cache": str(cached.cache), "fold": cell.fold}
        job |= {"study": study.model_dump(mode="json"), "arm": list(cell.arm)}
        (folder / "job.json").write_text(json.dumps(job))
        test = cut(study, dataset, cell).test
        Predictions.of(model, test, cached.cache).save(folder / "predictions.npz")
        for blank, images in ((False, test), (True, test.without_metadata())):
            named, _, _ = scores(trained, images, cached)
            expected[blank].append(balanced_accuracy_score(test.labels, named))
    main(tmp_path, ["known pooled"])
    with_, without = (line.split("|")[2] for line in capsys.readouterr().out.splitlines()[2:])
    for line, blank in ((with_, False), (without, True)):
        assert float(line.split("(")[0]) == pytest.approx(np.mean(expected[blank]), abs=6e-4)
    assert expected[False] != expected[True]
