"""Rules: the best for balanced accuracy, and a screening threshold that new lesions confirm."""

from functools import reduce
from operator import add

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import softmax

from common.answers.answer import TARGETS, Target
from common.answers.counts import AnswerCounts
from common.answers.operating import (
    balanced,
    operating_point,
    target_probabilities,
    targets_of,
    times_base_rate,
)
from common.errors import ConfigError
from common.statistics.calibration import decisions, uncalibrated
from common.statistics.metrics import SCORE_BINS, score_edges
from common.task import BINARY, HAM10000, ISIC2019, Task
from tests.examples import examples

BASE = np.array([0.04, 0.05, 0.11, 0.02, 0.11, 0.65, 0.02])
MEMBERS = {"mel": [4], "malignant": [0, 1, 4]}


def draw(n: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    rng = np.random.default_rng(seed)
    labels = rng.choice(HAM10000.n_classes, n, p=BASE)
    seen = rng.normal(size=(n, HAM10000.n_classes)) + 1.5 * (
        labels[:, None] == np.arange(HAM10000.n_classes)
    )
    logits = 1.5 * seen + np.log(BASE)
    return labels, softmax(logits, axis=1), logits


def test_targets_are_sums_of_their_diagnoses() -> None:
    _, p, _ = draw(50, 0)
    assert [HAM10000.codes[i] for i in MEMBERS["malignant"]] == ["akiec", "bcc", "mel"]
    want = np.stack([p[:, MEMBERS[t]].sum(axis=1) for t in TARGETS], axis=1)
    np.testing.assert_allclose(target_probabilities(p, HAM10000), want)


@pytest.mark.parametrize(
    ("task", "targets"),
    [
        (HAM10000, ("mel", "malignant")),
        (ISIC2019, ("mel", "malignant")),
        (BINARY, ("malignant",)),
        (Task.of(("mel", "nv")), ("mel",)),
        (Task.of(("nv", "bkl")), ()),
        (Task.of(("bcc", "scc")), ()),
    ],
)
def test_a_task_is_screened_for_what_it_has(task: Task, targets: tuple[Target, ...]) -> None:
    assert targets_of(task) == targets
    p = np.random.default_rng(0).dirichlet(np.ones(task.n_classes), 20)
    assert target_probabilities(p, task).shape == (20, len(targets))
    counts = AnswerCounts.measure(task, p.argmax(axis=1), p)
    assert counts.screening.shape == (len(targets), 2, SCORE_BINS)
    np.testing.assert_array_equal(
        (counts + AnswerCounts.zero(task)).screening.sum(axis=(1, 2)), [20] * len(targets)
    )


def test_balanced_rule_is_the_networks_balanced_decision() -> None:
    _, p, logits = draw(500, 1)
    for base in (BASE, np.where(np.arange(HAM10000.n_classes) == 3, 0.0, BASE)):
        np.testing.assert_array_equal(
            balanced(p, base), decisions(logits, uncalibrated(HAM10000.n_classes), base)
        )
    times = times_base_rate(p, base)
    assert (times[:, 3] == 0).all()
    np.testing.assert_allclose(times[:, 4], p[:, 4] / 0.11)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("sensitivity", [0.5, 0.9, 0.95])
def test_threshold_is_the_largest_bin_edge_that_flags_one_lesion_more_than_n_would_need(
    target: Target, sensitivity: float
) -> None:
    labels, p, _ = draw(1500, 2)
    counts = AnswerCounts.measure(HAM10000, labels, p).screening[TARGETS.index(target)]
    got = operating_point(target, counts, HAM10000.n_classes, sensitivity)
    has, value = np.isin(labels, MEMBERS[target]), p[:, MEMBERS[target]].sum(axis=1)
    n = has.sum()
    reach = [
        t
        for t in score_edges(HAM10000.n_classes)
        if (value[has] >= t).sum() >= sensitivity * (n + 1)
    ]
    assert got.threshold == max(reach)
    assert (got.positives, got.negatives) == (n, 1500 - n)
    assert got.sensitivity == (value[has] >= got.threshold).mean()
    assert got.specificity == (value[~has] < got.threshold).mean()
    assert got.sensitivity_interval[0] < got.sensitivity < got.sensitivity_interval[1]
    assert got.specificity_interval[0] < got.specificity < got.specificity_interval[1]


def test_new_lesions_are_flagged_as_often_as_wanted_and_the_interval_says_how_surely() -> None:
    labels, p, _ = draw(200_000, 3)
    new = p[labels == 4, 4]
    points, truth = [], []
    for seed in range(300):
        labels, p, _ = draw(400, 10 + seed)
        points.append(
            operating_point("mel", AnswerCounts.measure(HAM10000, labels, p).screening[0], 7, 0.9)
        )
        truth.append((new >= points[-1].threshold).mean())
    # About 44 lesions each: the mean's standard error is 0.003. The seeds are fixed.
    assert np.mean(truth) > 0.895
    held = [
        q.sensitivity_interval[0] <= s <= q.sensitivity_interval[1]
        for q, s in zip(points, truth, strict=True)
    ]
    assert np.mean(held) > 0.92


@examples(30)
@given(n=st.integers(0, 200), n_sites=st.integers(1, 5), seed=st.integers(0, 2**32 - 1))
def test_any_partition_adds_up_to_the_pooled_counts(n: int, n_sites: int, seed: int) -> None:
    labels, p, _ = draw(n, seed)
    site = np.random.default_rng(seed).integers(n_sites, size=n)
    parts = [
        AnswerCounts.measure(HAM10000, labels[site == s], p[site == s]).screening
        for s in range(n_sites)
    ]
    whole = AnswerCounts.measure(HAM10000, labels, p).screening
    np.testing.assert_array_equal(reduce(add, parts), whole)
    assert (whole.sum(axis=(1, 2)) == n).all()


def test_without_enough_lesions_there_is_no_rule_and_one_line_says_so() -> None:
    counts = np.zeros((2, SCORE_BINS), dtype=np.int64)
    with pytest.raises(ConfigError, match=r"melanoma at a sensitivity of 95 % needs 19 .* are 0"):
        operating_point("mel", counts, 7)
    counts[1, 500] = 18
    with pytest.raises(ConfigError, match=r"malignant lesions .* there are 18; set a smaller one"):
        operating_point("malignant", counts, 7)
    counts[1, 500] = 19
    point = operating_point("malignant", counts, 7)
    assert point.sensitivity == 1
    assert np.isnan(point.specificity)
    assert point.specificity_interval == (0, 1)


@pytest.mark.parametrize("sensitivity", [0.0, 1.0, 95, float("nan")])
def test_a_sensitivity_that_is_no_share_is_refused(sensitivity: float) -> None:
    with pytest.raises(ConfigError, match="choose one above 0 and below 1"):
        operating_point("mel", np.ones((2, SCORE_BINS), dtype=np.int64), 7, sensitivity)
