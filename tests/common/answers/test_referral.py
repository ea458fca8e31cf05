"""Risk over coverage against the definitions, computed slowly, and against hand-made cases."""

from functools import reduce
from operator import add

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import entropy
from sklearn.metrics import roc_auc_score

from common.answers.counts import AnswerCounts
from common.answers.referral import (
    RiskCoverage,
    confidences,
    refer_least_sure,
)
from common.errors import ConfigError
from common.statistics.metrics import SCORE_BINS
from common.task import HAM10000
from tests.examples import examples

K = 7


def draw(n: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Draw labels from the model's own probabilities."""
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(K, 0.3), size=n)
    return np.array([rng.choice(K, p=row) for row in p], dtype=np.int64), p


def curve(wrong: NDArray[np.bool_], confidence: NDArray[np.float64]) -> RiskCoverage:
    return RiskCoverage.of(wrong, confidence, np.ones((1, len(wrong))))


def slow_augrc(wrong: list[bool], confidence: list[float]) -> float:
    """Return the probability that the first of two is wrong and surer than the second."""
    pairs = [
        (g > h) + (g == h) / 2 if bad else 0.0
        for bad, g in zip(wrong, confidence, strict=True)
        for h in confidence
    ]
    return sum(pairs) / len(wrong) ** 2


records = st.lists(
    st.tuples(st.booleans(), st.sampled_from([0.1, 0.3, 0.5, 0.7, 0.9])), min_size=1, max_size=25
)


@examples(60)
@given(records=records)
def test_areas_are_those_of_the_definitions(records: list[tuple[bool, float]]) -> None:
    wrong, confidence = (list(values) for values in zip(*records, strict=True))
    got = curve(np.array(wrong), np.array(confidence))
    assert got.augrc()[0] == pytest.approx(slow_augrc(wrong, confidence))
    assert got.risk(1.0)[0] == pytest.approx(np.mean(wrong))


def test_augrc_is_the_papers_function_of_auc_and_accuracy() -> None:
    labels, p = draw(3000, 0)
    wrong, sure = p.argmax(axis=1) != labels, p.max(axis=1)
    accuracy, auc = 1 - wrong.mean(), roc_auc_score(~wrong, sure)
    want = (1 - auc) * accuracy * (1 - accuracy) + (1 - accuracy) ** 2 / 2
    assert curve(wrong, sure).augrc()[0] == pytest.approx(want)


@examples(30)
@given(records=records, seed=st.integers(0, 2**32 - 1))
def test_a_weight_of_k_is_k_equal_records(records: list[tuple[bool, float]], seed: int) -> None:
    wrong, confidence = (np.array(values) for values in zip(*records, strict=True))
    times = np.random.default_rng(seed).integers(0, 4, size=(3, len(wrong)))
    times[:, 0] += 1
    weighted = RiskCoverage.of(wrong, confidence, times.astype(np.float64))
    for row, repeated in enumerate(times):
        once = curve(np.repeat(wrong, repeated), np.repeat(confidence, repeated))
        assert weighted.augrc()[row] == pytest.approx(once.augrc()[0])
        assert weighted.risk(0.8)[row] == pytest.approx(once.risk(0.8)[0])


def test_by_hand() -> None:
    sure = np.array([0.9, 0.8, 0.7, 0.6])
    best = curve(np.array([False, False, False, True]), sure)
    worst = curve(np.array([True, False, False, False]), sure)
    assert (best.augrc()[0], worst.augrc()[0]) == (1 / 32, 7 / 32)
    assert best.risk(0.75)[0] == 0
    assert worst.risk(0.75)[0] == pytest.approx(1 / 3)
    assert best.risk(0.875)[0] == pytest.approx(0.5 / 3.5)  # half of the last by chance
    equal = curve(np.array([True, False, False, False]), np.full(4, 0.5))
    assert equal.risk(0.1)[0] == pytest.approx(0.25)
    assert equal.augrc()[0] == 1 / 8


def test_added_counts_give_the_areas_of_the_pooled_records() -> None:
    labels, p = draw(4000, 1)
    site = np.arange(4000) % 3
    parts = [AnswerCounts.measure(HAM10000, labels[site == s], p[site == s]) for s in range(3)]
    added = RiskCoverage.counted(reduce(add, parts).confidence)
    exact = curve(p.argmax(axis=1) != labels, p.max(axis=1))
    assert added.augrc() == pytest.approx(exact.augrc()[0], abs=2e-4)
    for coverage in (0.8, 0.9):
        assert added.risk(coverage) == pytest.approx(exact.risk(coverage)[0], abs=1e-3)


def test_confidences_are_those_of_their_names() -> None:
    _, p = draw(100, 2)
    p = np.vstack([p, np.eye(K)[0], np.full(K, 1 / K)])
    ordered = np.sort(p, axis=1)
    np.testing.assert_array_equal(confidences(p, "probability"), p.max(axis=1))
    np.testing.assert_allclose(confidences(p, "margin"), ordered[:, -1] - ordered[:, -2])
    want = 1 - entropy(p, axis=1) / np.log(K)
    np.testing.assert_allclose(confidences(p, "entropy"), want, atol=1e-12)


@examples(40)
@given(share=st.floats(0, 0.99), n=st.integers(1, 300), seed=st.integers(0, 2**32 - 1))
def test_no_more_than_the_share_is_referred_and_the_others_are_surer(
    share: float, n: int, seed: int
) -> None:
    labels, p = draw(n, seed)
    rule = refer_least_sure(AnswerCounts.measure(HAM10000, labels, p).confidence, share, K)
    sure, wrong = p.max(axis=1), p.argmax(axis=1) != labels
    referred = sure < rule.threshold
    assert rule.referred == pytest.approx(referred.mean())
    assert referred.mean() <= share + 1e-9
    assert rule.risk == pytest.approx(wrong[~referred].mean())
    assert rule.risk_interval[0] <= rule.risk <= rule.risk_interval[1]
    assert rule.risk_of_all == pytest.approx(wrong.mean())
    assert rule.lesions == n


def test_the_share_referred_is_the_one_wanted_within_a_bin() -> None:
    labels, p = draw(5000, 3)
    counts = AnswerCounts.measure(HAM10000, labels, p).confidence
    for share in (0.05, 0.1, 0.2, 0.5):
        largest_bin = counts.sum(axis=0).max() / 5000
        rule = refer_least_sure(counts, share, K)
        assert share - largest_bin <= rule.referred <= share
        assert rule.risk < rule.risk_of_all


@pytest.mark.parametrize("share", [-0.1, 1.0, 20, float("nan")])
def test_a_share_that_cannot_be_referred_is_refused(share: float) -> None:
    with pytest.raises(ConfigError, match="choose one from 0 to below 1"):
        refer_least_sure(np.ones((2, SCORE_BINS), dtype=np.int64), share, K)


def test_without_calibration_lesions_nothing_is_chosen() -> None:
    with pytest.raises(ConfigError, match="no calibration lesions"):
        refer_least_sure(np.zeros((2, SCORE_BINS), dtype=np.int64), 0.1, K)
