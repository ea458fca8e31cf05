"""Prediction sets against MAPIE's, and against what they promise."""

from fractions import Fraction
from functools import reduce
from operator import add

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mapie.classification import SplitConformalClassifier
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin

from common.answers.conformal import (
    by_class,
    by_site,
    everywhere,
    for_prevalence,
    lesions_needed,
    pooled,
)
from common.answers.counts import AnswerCounts
from common.answers.prediction_sets import (
    Score,
    Thresholds,
    scores,
    sets,
    widest,
)
from common.errors import ConfigError
from common.statistics.metrics import SCORE_BINS, score_edges
from common.task import HAM10000
from tests.examples import examples

K = 7
SHARES = np.array([0.033, 0.051, 0.11, 0.0115, 0.111, 0.67, 0.0135])
SHARES /= SHARES.sum()
SCORES: tuple[Score, ...] = ("probability", "adaptive")

Draw = tuple[NDArray[np.int64], NDArray[np.float64]]


def draw(n: int, seed: int, shares: NDArray[np.float64] = SHARES, signal: float = 1.5) -> Draw:
    """Draw lesions by class and a model that is often right."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(K, n, p=shares)
    logits = rng.normal(size=(n, K)) + signal * (labels[:, None] == np.arange(K))
    return labels, softmax(logits + np.log(SHARES), axis=1)


def histograms(drawn: Draw, score: Score) -> NDArray[np.int64]:
    counts = AnswerCounts.measure(HAM10000, *drawn)
    return {"probability": counts.probability, "adaptive": counts.cumulative}[score][:, 1]


class Given(ClassifierMixin, BaseEstimator):
    """A classifier whose inputs are its probabilities."""

    def fit(self, X: NDArray[np.float64], y: NDArray[np.int64]) -> "Given":
        self.classes_, self.fitted_ = np.arange(K), True
        return self

    def predict(self, X: NDArray[np.float64]) -> NDArray[np.int64]:
        return X.argmax(axis=1)

    def predict_proba(self, X: NDArray[np.float64]) -> NDArray[np.float64]:
        return X


class AlwaysOne(np.random.RandomState):
    """MAPIE subtracts a random share of a class's own probability; this subtracts all of it."""

    def uniform(self, *, size: object) -> NDArray[np.float64]:  # type: ignore[override]
        return np.ones(size)  # type: ignore[call-overload]


@pytest.mark.parametrize(("score", "theirs"), [("probability", "lac"), ("adaptive", "aps")])
@pytest.mark.parametrize("coverage", [0.8, 0.9, 0.95])
def test_sets_are_mapies_but_within_a_bin_of_the_threshold(
    score: Score, theirs: str, coverage: float
) -> None:
    calibration, (_, p) = draw(500, 1), draw(4000, 2)
    oracle = SplitConformalClassifier(
        Given().fit(p, p), coverage, theirs, prefit=True, random_state=AlwaysOne()
    )
    oracle.conformalize(calibration[1], calibration[0])
    want = oracle.predict_set(p)[1][:, :, 0].copy()
    thresholds = pooled(histograms(calibration, score), coverage, score)
    want[np.arange(len(p)), p.argmax(axis=1)] = True  # MAPIE's may be empty
    differ = sets(p, thresholds) != want
    edges = score_edges(K)
    of_score = np.searchsorted(edges, scores(p, score), side="right")
    of_threshold = np.searchsorted(edges, thresholds.values[0], side="right")
    assert not differ[of_score != of_threshold].any()
    assert not (differ & want).any()  # binning makes sets larger only
    assert want.sum() > 1.1 * len(want)


@pytest.mark.parametrize("score", SCORES)
def test_pooled_sets_are_those_of_the_sorted_binned_scores(score: Score) -> None:
    labels, p = draw(300, 3)
    edges = score_edges(K)
    own = np.searchsorted(edges, scores(p, score)[np.arange(300), labels], side="right")
    conforming = np.sort(own if score == "adaptive" else -own)
    for percent in (80, 95, 99):
        rank = -(-301 * Fraction(percent, 100) // 1)
        new = np.searchsorted(edges, scores(p, score), side="right")
        limit = conforming[int(rank) - 1]
        want = (new if score == "adaptive" else -new) <= limit
        want[np.arange(300), p.argmax(axis=1)] = True
        got = sets(p, pooled(histograms((labels, p), score), percent / 100, score))
        np.testing.assert_array_equal(got, want)


@examples(40)
@given(
    n=st.integers(60, 300),
    n_sites=st.integers(1, 5),
    score=st.sampled_from(SCORES),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_partition_adds_up_to_the_pooled_histograms(
    n: int, n_sites: int, score: Score, seed: int
) -> None:
    labels, p = draw(n, seed)
    site = np.random.default_rng(seed).integers(n_sites, size=n)
    parts = [histograms((labels[site == s], p[site == s]), score) for s in range(n_sites)]
    whole = histograms((labels, p), score)
    added = reduce(add, parts)
    assert whole.sum() == n
    np.testing.assert_array_equal(added, whole)


@examples(40)
@given(
    n=st.integers(100, 400),
    score=st.sampled_from(SCORES),
    coverage=st.floats(0.5, 0.98),
    seed=st.integers(0, 2**32 - 1),
)
def test_thresholds_agree_where_they_mean_the_same(
    n: int, score: Score, coverage: float, seed: int
) -> None:
    counts = histograms(draw(n, seed), score)
    whole = pooled(counts, coverage, score)
    base = for_prevalence(counts, counts.sum(axis=1) / n, coverage, score)
    present = counts.any(axis=1)
    np.testing.assert_array_equal(base.values[present], whole.values[present])
    assert (base.lesions == n).all()
    one_class = counts * 0
    one_class[3] = counts.sum(axis=0)
    assert by_class(one_class, coverage, score).values[3] == whole.values[0]
    alone = by_site(counts.sum(axis=0), counts, coverage, score, prior=0)
    np.testing.assert_array_equal(alone.values, whole.values)
    lost = by_site(counts[0] * 0, counts, coverage, score)
    np.testing.assert_array_equal(lost.values, whole.values)


@examples(40)
@given(
    score=st.sampled_from(SCORES),
    low=st.floats(0.5, 0.9),
    more=st.floats(0, 0.08),
    seed=st.integers(0, 2**32 - 1),
)
def test_more_coverage_and_wider_thresholds_only_add_diagnoses(
    score: Score, low: float, more: float, seed: int
) -> None:
    drawn = draw(200, seed)
    p, counts = drawn[1], histograms(drawn, score)
    narrow, wide = pooled(counts, low, score), pooled(counts, low + more, score)
    assert (sets(p, wide) >= sets(p, narrow)).all()
    own = by_class(counts, low, score)
    both = sets(p, widest(own, wide))
    np.testing.assert_array_equal(both, sets(p, own) | sets(p, wide))
    assert both[np.arange(200), p.argmax(axis=1)].all()


def coverages(score: Score, repeats: int = 300) -> NDArray[np.float64]:
    """Return for each of many calibrations with few lesions how the four thresholds cover."""
    shifted = np.array([0.3, 0.05, 0.05, 0.3, 0.05, 0.05, 0.2])
    rows = []
    for seed in range(repeats):
        counts = histograms(draw(150, 2 * seed), score)
        new, moved = draw(150, 2 * seed + 1), draw(150, 2 * seed + 1, shifted)
        for_new = (pooled(counts, 0.9, score), by_class(counts, 0.9, score))
        rows.append([covered(t, new) for t in for_new])
        rows[-1].append(covered(for_prevalence(counts, shifted, 0.9, score), moved))
        rows[-1].append(covered(pooled(counts, 0.9, score), moved))
    return np.array(rows)


def covered(thresholds: Thresholds, lesions: Draw) -> float:
    labels, p = lesions
    return float(sets(p, thresholds)[np.arange(len(labels)), labels].mean())


@pytest.mark.parametrize("score", SCORES)
def test_new_lesions_are_covered_as_promised(score: Score) -> None:
    # 45,000 new lesions: four standard errors of the mean are below 0.01. The seeds are fixed.
    whole, each_class, weighted, unweighted = coverages(score).mean(axis=0)
    assert whole > 0.89
    assert each_class > 0.89
    assert weighted > 0.89
    assert unweighted < 0.87  # what the weights are for


@pytest.mark.parametrize("score", SCORES)
def test_a_class_with_19_lesions_has_a_guarantee_of_its_own_and_one_with_18_none(
    score: Score,
) -> None:
    labels, p = draw(3000, 5)
    index = np.concatenate([np.flatnonzero(labels == c)[: 18 if c == 3 else 19] for c in range(K)])
    counts = histograms((labels[index], p[index]), score)
    own, whole = by_class(counts, 0.95, score), pooled(counts, 0.95, score)
    assert own.without_guarantee.tolist() == [c == 3 for c in range(K)]
    assert own.values[3] == whole.values[3]
    assert own.lesions.tolist() == [len(index) if c == 3 else 19 for c in range(K)]
    inside = sets(p[index], own)[np.arange(len(index)), labels[index]]
    assert inside[labels[index] != 3].all()  # with 19 lesions the worst of them decides


def test_a_site_is_followed_the_less_the_more_pooled_lesions_join_its_own() -> None:
    hard, easy = draw(2000, 8, signal=0.5), draw(2000, 9, signal=3.0)
    site = histograms(hard, "probability")
    everyone = histograms(easy, "probability") + site
    values = [
        by_site(site.sum(axis=0), everyone, 0.9, "probability", prior).values[0]
        for prior in (0, 500, 5000, 1e9)
    ]
    assert values[0] == pooled(site, 0.9, "probability").values[0]
    assert values[0] < values[1] < values[2] < values[3]
    assert values[3] == pooled(everyone, 0.9, "probability").values[0]


@pytest.mark.parametrize("score", SCORES)
def test_everywhere_covers_classes_and_a_hard_site(score: Score) -> None:
    easy, hard = draw(3000, 13, signal=3.0), draw(300, 14, signal=0.5)
    site = histograms(hard, score)
    counts = histograms(easy, score) + site
    new = draw(2000, 15, signal=0.5)
    assert covered(pooled(counts, 0.95, score), new) < 0.92
    assert covered(everywhere(counts, 0.95, score, site.sum(axis=0)), new) > 0.94
    (labels, p), shrunk = easy, everywhere(counts, 0.95, score)
    for c in range(K):
        promised = 0.95 - 0.05 * 20 / (labels == c).sum()
        assert sets(p, shrunk)[labels == c, c].mean() > promised
    exact = widest(by_class(counts, 0.95, score), pooled(counts, 0.95, score))
    assert sets(p, shrunk).sum() < sets(p, exact).sum()


def test_a_class_that_only_the_place_of_use_has_is_in_every_set() -> None:
    counts = histograms(draw(500, 10), "probability")
    counts[0] = 0
    thresholds = for_prevalence(counts, SHARES, 0.9, "probability")
    assert thresholds.without_guarantee.tolist() == [c == 0 for c in range(K)]
    assert sets(draw(100, 11)[1], thresholds)[:, 0].all()


def test_equally_likely_classes_have_equal_adaptive_scores() -> None:
    p = np.array([[0.4, 0.2, 0.2, 0.1, 0.1, 0.0, 0.0], np.full(K, 1 / K)])
    want = [[0, 0.4, 0.4, 0.8, 0.8, 1, 1], np.zeros(K)]
    np.testing.assert_allclose(scores(p, "adaptive"), want)
    assert (scores(p, "adaptive") <= 1).all()


@pytest.mark.parametrize(
    ("coverage", "n"), [(0.5, 1), (0.9, 9), (0.95, 19), (0.99, 99), (0.999, 999)]
)
def test_lesions_needed_are_those_without_which_no_threshold_exists(
    coverage: float, n: int
) -> None:
    assert lesions_needed(coverage) == n
    labels, p = draw(n, 12)
    pooled(histograms((labels, p), "adaptive"), coverage, "adaptive")
    with pytest.raises(ConfigError, match=f"needs {n} calibration lesions and there are {n - 1}"):
        pooled(histograms((labels[1:], p[1:]), "adaptive"), coverage, "adaptive")


@pytest.mark.parametrize("coverage", [0.0, 1.0, -1, 95, float("nan")])
def test_a_coverage_that_is_no_share_is_refused(coverage: float) -> None:
    with pytest.raises(ConfigError, match="choose one above 0 and below 1"):
        pooled(np.ones((K, SCORE_BINS), dtype=np.int64), coverage, "probability")
