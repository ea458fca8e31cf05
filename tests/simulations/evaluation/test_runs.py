"""Runs on the same test lesions: the figures are those of independent code."""

import json
import shutil

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, roc_auc_score

from common.answers.answering import Answering, AnswerOptions
from common.data.splits import TEST
from common.models.file import load_model
from common.synthetic_note import SYNTHETIC_NOTE
from common.task import HAM10000
from server.run.folder import MODEL_FILE
from simulations.runtimes.experiment import with_splits
from tests.commands import is_one_error, metrics_of


@pytest.fixture
def cache(cached) -> str:
    return f"cache={cached.cache}"


def test_figures_are_those_of_scikit_learn_and_of_the_runs(
    fedderm, synthetic_folder, cached, cache, finished, tuned, tmp_path
):
    runs, file = (tuned, finished / "run"), tmp_path / "figures.json"
    code, shown, err = fedderm("evaluate", synthetic_folder, *runs, cache, "--out", file)
    assert (code, err) == (0, "")
    assert shown.splitlines()[0] == SYNTHETIC_NOTE
    values = json.loads(file.read_text())
    assert values["synthetic"] is True
    dataset = with_splits(synthetic_folder, cached)
    test = dataset.select(dataset.splits == TEST)
    assert values["images"] == len(test)
    assert values["lesions"] == len(set(test.lesions))
    first = values["runs"][0]["quality"]
    for run, found in zip((tuned, finished), values["runs"], strict=True):
        quality, counted = found["quality"], metrics_of(run / "run")["overall"]
        truth, expected = test.labels, _reference(run, test, cached)
        for name in ("accuracy", "balanced_accuracy", "macro_auc"):
            assert quality[name] == pytest.approx(expected[name])
            # An area under binned scores is not quite that under the scores.
            assert quality[name] == pytest.approx(counted[name], abs=2e-3)
            assert name == "accuracy" or f"{quality[name]:.3f} (" in shown
        assert quality["calibration_error"] == pytest.approx(counted["expected_calibration_error"])
        for name, value in _answers_reference(run, test, cached).items():
            assert quality["answers"][name] == pytest.approx(value), name
            low, high = quality["answers"][f"{name}_interval"]
            assert low <= value <= high
            assert f"{value:.3f} ({low:.3f} to {high:.3f})" in shown
        low, high = quality["balanced_accuracy_interval"]
        assert low < quality["balanced_accuracy"] < high
        assert len(truth) == counted["n"]
    assert values["runs"][0]["gap"] is None
    assert [run["method"] for run in values["runs"]] == ["finetune", "svm"]
    gap, second = (values["runs"][1][key] for key in ("gap", "quality"))
    for name in ("balanced_accuracy", "macro_auc"):
        assert gap[name] == pytest.approx(second[name] - first[name])
        low, high = gap[f"{name}_interval"]
        assert 0 < low < gap[name] < high
        assert f"| {gap[name]:+.3f} ({low:+.3f} to {high:+.3f}) |" in shown


def _reference(run, test, cached):
    """Judge a model by scikit-learn, as a mean over the classes there are."""
    model = load_model(run / "run" / MODEL_FILE)
    scores = model.dataset_scores(test, cached.cache)
    logits = model.basis.calibration[0] * scores + model.basis.calibration[1]
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    aucs = [roc_auc_score(test.labels == c, chances[:, c]) for c in np.unique(test.labels)]
    predicted = (chances / model.basis.base_rates).argmax(axis=1)
    return {
        "accuracy": accuracy_score(test.labels, predicted),
        "balanced_accuracy": balanced_accuracy_score(test.labels, predicted),
        "macro_auc": np.mean(aucs),
    }


def _answers_reference(run, test, cached):
    """Judge what the model answers about each image, the mean of a lesion's images at once."""
    model = load_model(run / "run" / MODEL_FILE)
    p = model.basis.probabilities(model.dataset_scores(test, cached.cache))
    said = Answering(model.basis, AnswerOptions()).answers(
        [""] * len(test), p, np.full(len(test), np.nan)
    )
    sets = [answer.prediction_set.diagnoses for answer in said]
    held = np.array([HAM10000.codes[c] in s for c, s in zip(test.labels, sets, strict=True)])
    wrong, sure = p.argmax(axis=1) != test.labels, p.max(axis=1)
    share = 1 / np.array([np.sum(test.lesions == lesion) for lesion in test.lesions])
    sooner = (sure[:, None] > sure) + (sure[:, None] == sure) / 2
    return {
        "coverage": np.average(held, weights=share),
        "set_size": np.average([len(s) for s in sets], weights=share),
        "augrc": share * wrong @ sooner @ share / share.sum() ** 2,
    }


@pytest.mark.parametrize(("key", "value"), [("seed", 5), ("test_fraction", 0.5), ("folds", 4)])
def test_runs_that_hold_out_other_lesions_are_refused(
    fedderm, synthetic_folder, cache, finished, tmp_path, key, value
):
    model = load_model(finished / "run" / MODEL_FILE)
    other = tmp_path / "other"
    changed = model.config.model_copy(update={key: value})
    type(model)(**{**vars(model), "config": changed}).save(other)
    refused = fedderm("evaluate", synthetic_folder, finished, other, cache)
    assert is_one_error(*refused)
    first = getattr(model.config, key)
    assert f"{other} holds out other test lesions: its {key} is {value}" in refused[2]
    assert f"that of {finished} is {first}; " in refused[2]


def test_a_run_that_saw_a_test_lesion_is_refused(
    fedderm, synthetic_folder, settings, cache, tmp_path
):
    """Its sites carry the splits of another seed than its own."""
    sites, out = tmp_path / "sites", tmp_path / "out"
    splits = ("--seed", 7, "--test-fraction", 0.3, "--folds", 2)
    iid = ("--scheme", "iid", "--sites", 2, "--link")
    fedderm("data", "partition", synthetic_folder, "--out", sites, *iid, *splits)
    fedderm("simulate", sites, "--out", out, "--scheme", "folders", *settings)
    refused = fedderm("evaluate", synthetic_folder, out, cache)
    assert is_one_error(*refused)
    assert f"{out} was trained on " in refused[2]
    # Without its sites nobody can tell, which is said.
    shutil.rmtree(sites)
    code, shown, _ = fedderm("evaluate", synthetic_folder, out, cache)
    assert code == 0
    assert "| - | - |" in shown


def test_mistakes_are_one_line_before_anything_is_computed(
    fedderm, synthetic_folder, cache, finished, tmp_path
):
    for arguments, reason in (
        ((finished, tmp_path), f"{tmp_path} holds no finished run"),
        (
            (finished, tmp_path / "none"),
            "none holds no finished run; name a run's",
        ),
        ((cache,), "no run to evaluate"),
        ((finished, "--out", finished / "run" / MODEL_FILE), "name a new file"),
        ((finished, "--out", tmp_path / "none" / "file"), "name a new file"),
    ):
        refused = fedderm("evaluate", synthetic_folder, *arguments)
        assert is_one_error(*refused)
        assert reason in refused[2]


def test_runs_are_shown_by_the_groups_that_are_named(
    fedderm, synthetic_folder, cache, finished, tmp_path
):
    file = tmp_path / "figures.json"
    named = ("--by", "age:40,60,sex*age", "--out", file)
    code, shown, err = fedderm("evaluate", synthetic_folder, finished / "run", cache, *named)
    assert (code, err) == (0, "")
    values = json.loads(file.read_text())
    found = values["runs"][0]["by_group"]
    for dimension in ("age", "sex*age"):
        lesions = sum(g["lesions"] for g in found["groups"] if g["dimension"] == dimension)
        assert lesions + found["unknown"][dimension] == pytest.approx(values["lesions"])
    assert "female \\* 40 to 59 |" in shown
    wrong = fedderm("evaluate", synthetic_folder, finished / "run", cache, "--by", "race")
    assert is_one_error(*wrong)
    assert "known are age, sex, localization, site, dx_type, skin_tone" in wrong[2]
