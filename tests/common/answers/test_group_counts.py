"""Counts by group: they add over any partition, hide small groups, and give fairlearn's figures."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from fairlearn.metrics import MetricFrame
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, recall_score, roc_auc_score

from common.answers.answering import Answering, AnswerOptions
from common.answers.basis import AnswerBasis
from common.answers.counts import AnswerCounts
from common.answers.group_counts import GroupCounts
from common.answers.group_metrics import group_metrics
from common.data.counted_groups import CountedGroups
from common.data.groups import PLACES, SMALL
from common.data.image import Image
from common.statistics.calibration import even, uncalibrated
from common.task import HAM10000
from tests.examples import examples
from tests.records import total

K = HAM10000.n_classes
GROUPS = CountedGroups.read("sex,age,localization,sex*age")
IMAGE = Image("i", "l", "nv", "histo", 40.0, "female", "back")


class Judged:
    """Images of lesions with their groups, and what a model says of them.

    Parameters
    ----------
    n : number of images; a lesion has one or several, at places of its own.
    """

    def __init__(self, n: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.lesions = rng.integers(max(1, n // 2), size=n)
        ages = [*(np.arange(5.0, 100.0, 10.0)), None]
        likely = rng.dirichlet(np.full(len(ages), 0.3)), rng.dirichlet(np.full(len(PLACES), 0.3))
        of = {
            "age": rng.choice(np.array(ages), self.lesions.size, p=likely[0])[self.lesions],
            "sex": rng.choice(["female", "male", "unknown", "x"], n, p=[0.5, 0.4, 0.05, 0.05]),
            "localization": rng.choice(PLACES, n, p=likely[1]),
        }
        self.images = [
            replace(IMAGE, **{name: values[i] for name, values in of.items()}) for i in range(n)
        ]
        self.labels = rng.integers(K, size=n)
        raw = rng.dirichlet(np.ones(K), n) + 0.7 * np.eye(K)[self.labels]
        self.chances = raw / raw.sum(axis=1, keepdims=True)
        self.called = self.chances.argmax(axis=1)

    def counts(self, chosen: Any = slice(None), least: int = 0) -> GroupCounts:
        """Count chosen images as a site does that has these alone."""
        images = list(np.array(self.images, dtype=object)[chosen])
        lesions = self.lesions[chosen]
        return GroupCounts.measure(
            HAM10000,
            GROUPS.of(images, lesions, HAM10000, least),
            GROUPS.size,
            lesions,
            self.labels[chosen],
            self.called[chosen],
            self.chances[chosen],
        )


@examples(20)
@given(seed=st.integers(0, 10**6), n=st.integers(0, 80), sites=st.integers(1, 5))
def test_any_partition_of_the_lesions_adds_up_to_the_pooled_counts(seed, n, sites):
    judged = Judged(n, seed)
    site = np.random.default_rng(seed).integers(sites, size=n + 1)[judged.lesions]
    added = total([judged.counts(site == s) for s in range(sites)])
    for name, array in judged.counts().to_record().items():
        np.testing.assert_allclose(getattr(added, name), array, atol=1e-9)


@examples(40)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 150), least=st.integers(1, 25))
def test_no_group_of_fewer_lesions_is_told_not_even_by_what_is_left(seed, n, least):
    judged = Judged(n, seed)
    told, exact = judged.counts(least=least), judged.counts()
    lesions = len(set(judged.lesions))
    assert ((told.lesions == 0) | (told.lesions >= least)).all()
    for dimension, place in GROUPS.places():
        confusion = told.confusion[place]
        # All images are in some group, or none is where the site has too few.
        expected = exact.confusion[place].sum(axis=0) if lesions >= least else 0
        np.testing.assert_array_equal(confusion.sum(axis=0), expected)
        shown = np.flatnonzero(told.lesions[place][:-1])
        for name in ("confusion", "screening", "calibration", "confidence"):
            same = getattr(told, name)[place][shown], getattr(exact, name)[place][shown]
            np.testing.assert_array_equal(*same)
        told_apart = [GROUPS.names(dimension)[number] for number in shown]
        _check_what_is_left(judged, dimension.columns, told_apart, least)


def _check_what_is_left(judged, columns, told_apart, least):
    """Check that what is not told has enough lesions in each group of a crossing, or is all of it.

    Else it would be found as that group, asked by itself, minus what is told of it.
    """
    words = np.array([[_word(image, name) for name in columns] for image in judged.images])
    left = ~np.isin([" * ".join(each) for each in words], told_apart)
    of_one_word = [words[:, c] == word for c in range(len(columns)) for word in set(words[:, c])]
    for part in of_one_word if len(columns) > 1 else [np.ones(len(left), dtype=bool)]:
        hidden = len(set(judged.lesions[part & left]))
        assert hidden == 0 or hidden >= least or left[part].all()


def _word(image, column):
    value = getattr(image, column)
    if column != "age":
        return {"unknown": "missing", "x": "other"}.get(value, value)
    if value is None or value >= 90:
        return "missing" if value is None else "90 or more"
    return f"{value // 10 * 10:.0f} to {value // 10 * 10 + 9:.0f}"


def test_figures_are_those_of_fairlearn():
    judged = Judged(900, 3)
    others = Judged(900, 4)
    lesions = AnswerCounts.measure(HAM10000, others.labels, others.chances)
    basis = AnswerBasis.of(HAM10000, uncalibrated(K), even(K), lesions)
    thresholds = {p.target: p.threshold for p in Answering(basis, AnswerOptions()).points}
    malignant = np.isin(np.array(HAM10000.codes)[judged.labels], HAM10000.malignant)
    melanoma = judged.labels == HAM10000.codes.index("mel")
    chance = judged.chances[:, np.isin(HAM10000.codes, HAM10000.malignant)].sum(axis=1)
    flagged = chance >= thresholds["malignant"]
    suspected = judged.chances[:, HAM10000.codes.index("mel")] >= thresholds["mel"]
    expected = {
        "images": (lambda t, q: len(t), melanoma, flagged),
        "lesions": (lambda t, q: len(set(q)), melanoma, judged.lesions),
        "balanced_accuracy": (balanced_accuracy_score, judged.labels, judged.called),
        "melanoma_sensitivity": (recall_score, melanoma, suspected),
        "malignant_sensitivity": (recall_score, malignant, flagged),
        "malignant_specificity": (recall_score, ~malignant, ~flagged),
        "auc": (roc_auc_score, malignant, chance),
    }
    found = group_metrics(basis, GROUPS, judged.counts(), {})
    assert SMALL not in found["sex"]
    for dimension, _ in GROUPS.places():
        names = [" * ".join(_word(i, c) for c in dimension.columns) for i in judged.images]
        large = [name for name in set(names) if names.count(name) >= 60]
        assert found[dimension.name].keys() == set(names)
        assert len(large) >= 2
        for metric, (function, truth, said) in expected.items():
            frame = MetricFrame(
                metrics=lambda t, q, f=function: f(t, q) if len(set(t)) > 1 else np.nan,
                y_true=truth,
                y_pred=said,
                sensitive_features=names,
            ).by_group
            for name in large:
                close = 2e-3 if metric == "auc" else 1e-9
                value = found[dimension.name][name][metric]
                assert value == pytest.approx(frame[name], abs=close), metric
