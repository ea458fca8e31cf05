"""At one sensitivity models are compared by thresholds of other lesions than those they flag."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from fairlearn.metrics import MetricFrame, false_positive_rate, selection_rate, true_positive_rate
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_curve

from common.answers.answering import Answering, AnswerOptions
from common.answers.operating import target_probabilities, targets_of
from common.data.dataset import Dataset
from common.task import HAM10000
from simulations.evaluation.answered import Answered
from simulations.evaluation.groups.figures import Grouping
from simulations.evaluation.groups.measures import Records
from simulations.evaluation.groups.remedies import (
    ALL,
    Remedy,
    above_own_threshold,
    cross_fitted,
    diagnoses_served,
    largest_threshold,
    screening_served,
)
from simulations.evaluation.groups.weights import lesion_weights
from tests.common.answers.test_group_thresholds import MALIGNANT, basis_of, draw

MALIGNANT_COLUMN = targets_of(HAM10000).index("malignant")


def remedy(labels, p, scores, name="plain"):
    members = np.ones_like(p)
    flagged = np.zeros((len(p), 2))
    answered = Answered(members, members, flagged, np.zeros(len(p)))
    ones = np.ones(len(p))
    records = Records.of(HAM10000, labels, p.argmax(axis=1), p, answered, ones)
    return Remedy(name, scores, records)


@settings(max_examples=50)
@given(st.integers(0, 10**6), st.floats(0.3, 0.97))
def test_the_threshold_is_the_strictest_of_the_curve_that_has_the_sensitivity(seed, sensitivity):
    """Scikit-learn's curve is the reference; repeated lesions are as a lesion of that weight."""
    rng = np.random.default_rng(seed)
    having, scores = rng.random(200) < 0.5, np.round(rng.normal(size=200), 1)
    times = rng.integers(1, 4, 200)
    again = np.repeat(np.arange(200), times)
    _, rate, limits = roc_curve(having[again], scores[again], drop_intermediate=False)
    n = times[having].sum()
    enough = rate * n >= sensitivity * (n + 1) - 1e-9
    found = largest_threshold(scores, having, times[None].astype(float), sensitivity)
    assert found == [limits[enough].max() if enough.any() else -np.inf]


def test_a_lesion_has_no_part_in_the_threshold_that_it_is_flagged_by():
    rng = np.random.default_rng(0)
    having, scores, fold = rng.random(300) < 0.5, rng.random(300), np.arange(300) % 5
    weights = np.ones((1, 300))
    before = cross_fitted(scores, having, weights, fold, 0.9)
    for number in range(5):
        moved = np.where((fold == number) & having, scores - 2, scores)
        after = cross_fitted(moved, having, weights, fold, 0.9)
        benign = (fold == number) & ~having
        np.testing.assert_array_equal(after[:, benign], before[:, benign])
        assert not after[:, (fold == number) & having].any()


def test_figures_are_those_of_fairlearn_and_all_models_have_the_same_sensitivity():
    patients, labels, p = draw(4000, 0, few=300)
    sex = np.array([patient.sex for patient in patients])
    groups = np.where(sex == "unknown", "", sex)
    scores = target_probabilities(p, HAM10000)
    weights = lesion_weights(labels, np.arange(4000).astype(str), 1, 20)
    fold = np.random.default_rng(1).integers(0, 10, 4000)
    basis = basis_of(*draw(4000, 5))
    above = above_own_threshold(basis, scores, patients, 0.9)
    # Above 0 is what the product flags.
    rules = Answering(basis, AnswerOptions(sensitivity=0.9)).points_for(patients)
    used = np.array([[rule.threshold for rule in of] for of in rules])
    np.testing.assert_array_equal(above >= 0, scores >= used)

    plain, own = remedy(labels, p, scores), remedy(labels, p, above, "by sex")
    names = ("female", "male")
    malignant = MALIGNANT[labels]
    served = {}
    for each in (plain, own):
        found = screening_served(
            each, "malignant", weights, fold, Grouping("g", names, groups), 0.9
        )
        served[each.name] = found
        for number in (0, 7):
            flagged = cross_fitted(
                each.scores[:, MALIGNANT_COLUMN], malignant, weights[[number]], fold, 0.9
            )[0]
            frame = MetricFrame(
                metrics={"s": true_positive_rate, "f": false_positive_rate, "r": selection_rate},
                y_true=malignant,
                y_pred=flagged,
                sensitive_features=sex,
                sample_params={k: {"sample_weight": weights[number]} for k in "sfr"},
            )
            for name in names:
                values = {m: v[number] for m, v in found.by_group[name].items()}
                expected = frame.by_group.loc[name]
                assert values["sensitivity"] == pytest.approx(expected["s"])
                assert values["specificity"] == pytest.approx(1 - expected["f"])
                assert values["referred"] == pytest.approx(expected["r"])
            every = {m: v[number] for m, v in found.by_group[ALL].items()}
            assert every["sensitivity"] == pytest.approx(frame.overall["s"])
            assert every["sensitivity"] == pytest.approx(0.9, abs=0.01)
        gaps = found.by_group["male"]["sensitivity"] - found.by_group["female"]["sensitivity"]
        np.testing.assert_allclose(found.gap["sensitivity"], np.abs(gaps))
    assert served["plain"].worst["sensitivity"] == "female"
    assert served["by sex"].gap["sensitivity"].max() < served["plain"].gap["sensitivity"].min()
    # What the other group pays for it.
    lost = served["plain"].by_group["male"]["sensitivity"][0]
    assert served["by sex"].by_group["male"]["sensitivity"][0] < lost
    # Diagnoses are the same, whatever the threshold.
    for metric in ("balanced_accuracy", "auc"):
        a, b = (diagnoses_served(r, weights, Grouping("g", names, groups)) for r in (plain, own))
        np.testing.assert_array_equal(a.by_group["male"][metric], b.by_group["male"][metric])


def test_an_evaluation_flags_by_each_patients_own_threshold(synthetic_folder):
    dataset = Dataset.open(synthetic_folder)
    basis = basis_of(*draw(2000, 0))
    p = np.random.default_rng(0).dirichlet(np.ones(7), len(dataset))
    chances = target_probabilities(p, HAM10000)
    points = Answering(basis, AnswerOptions()).points
    known = np.array([image.sex for image in dataset.images])
    own = [
        [basis.by_group.point(HAM10000, ("female", "male").index(sex), point).threshold
         if sex in ("female", "male") else point.threshold for point in points]
        for sex in known
    ]  # fmt: skip
    common = [point.threshold for point in points]
    model = SimpleNamespace(basis=basis)
    for judged, thresholds in ((dataset, own), (dataset.without_metadata(), common)):
        answered = Answered.of(model, judged, p, Path())
        np.testing.assert_array_equal(answered.flagged, chances >= np.array(thresholds))
    assert ((chances >= np.array(own)) != (chances >= np.array(common))).any()


def test_a_group_of_few_lesions_has_no_figure_and_is_not_the_worst():
    patients, labels, p = draw(800, 2)
    groups = np.array([patient.sex for patient in patients])
    malignant = np.flatnonzero(MALIGNANT[labels])
    groups[malignant[:9]] = "other"
    weights = lesion_weights(labels, np.arange(800).astype(str), 1, 5)
    each = remedy(labels, p, target_probabilities(p, HAM10000))
    fold = np.arange(800) % 10
    names = ("female", "male", "other")
    found = screening_served(each, "malignant", weights, fold, Grouping("g", names, groups), 0.9)
    assert np.isnan(found.by_group["other"]["sensitivity"]).all()
    assert found.worst["sensitivity"] == "female"
    said = diagnoses_served(each, weights, Grouping("g", names, groups))
    assert np.isnan(said.by_group["other"]["auc"]).all()
    assert said.worst["auc"] == "female"
    alone = screening_served(
        each, "malignant", weights, fold, Grouping("g", names[:1], groups), 0.9
    )
    assert alone.worst["sensitivity"] == ""
    assert np.isnan(alone.gap["sensitivity"]).all()
