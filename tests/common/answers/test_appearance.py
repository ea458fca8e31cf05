"""Distances from added moments are scikit-learn's; a threshold keeps what it promises."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.covariance import OAS
from sklearn.preprocessing import StandardScaler

from common.answers.appearance import EDGES, SIZE, Appearance, DistanceCounts, appearance
from common.statistics.moments import Moments
from tests.examples import examples
from tests.records import Floats, Ints, draw_records, partitions, total

X, Y = draw_records(400, 12)
DISTANCES = np.random.default_rng(2).gamma(20.0, 0.05, len(Y))


def moments(X: Floats) -> Moments:
    return Moments.measure(X, np.zeros(len(X), dtype=np.int64), np.ones(len(X)), 1)


@examples(30)
@given(partitions(Y))
def test_distances_from_added_moments_are_scikit_learns(sites: list[Ints]) -> None:
    scaler = StandardScaler().fit(X)
    pooled = OAS(assume_centered=True).fit(scaler.transform(X))
    elsewhere = 3.0 * X[::7] + 1.0
    got = Appearance.fit(total([moments(X[rows]) for rows in sites])).distance(elsewhere)
    want = np.sqrt(pooled.mahalanobis(scaler.transform(elsewhere)) / X.shape[1])
    np.testing.assert_allclose(got, want, rtol=1e-9)


@given(st.integers(2, 11), st.integers(0, 2**32 - 1))
def test_fewer_lesions_than_components_give_a_distance(n: int, seed: int) -> None:
    few = np.random.default_rng(seed).standard_normal((n, 12))
    look = Appearance.fit(moments(few))
    far = look.distance(few.mean(axis=0) + 100.0 * np.eye(12))
    assert np.isfinite(far).all()
    assert (far > look.distance(few).max()).all()


@pytest.mark.parametrize("n", [1, 300])
def test_a_constant_component_counts_by_its_own_unit(n: int) -> None:
    lesions = np.column_stack([X[:n, :3], np.full(n, 5.0)])
    changed = lesions[:1] + np.array([0.0, 0.0, 0.0, 2.0])
    look = Appearance.fit(moments(lesions))
    squares = 4 * (look.distance(changed) ** 2 - look.distance(lesions[:1]) ** 2)
    np.testing.assert_allclose(squares, 4.0, rtol=1e-6)


@given(partitions(Y))
def test_any_partition_adds_up_to_the_pooled_counts(sites: list[Ints]) -> None:
    got = total([DistanceCounts.measure(DISTANCES[rows]) for rows in sites])
    np.testing.assert_array_equal(got.counts, DistanceCounts.measure(DISTANCES).counts)
    assert got.counts.sum() == len(DISTANCES)


@examples(30)
@given(st.integers(20, 60), st.sampled_from([0.05, 0.1, 0.25]), st.integers(0, 2**32 - 1))
def test_at_most_the_share_of_exchangeable_lesions_is_above(
    n: int, share: float, seed: int
) -> None:
    drawn = np.random.default_rng(seed).lognormal(0.0, 0.5, n)
    # Each of n equally likely lesions is the new one in turn, the others are counted.
    thresholds = [DistanceCounts.measure(np.delete(drawn, i)).threshold(share) for i in range(n)]
    above = sum(d > t for d, t in zip(drawn, thresholds, strict=True) if t is not None)
    assert above <= share * n


@given(st.integers(19, 200), st.integers(0, 2**32 - 1))
def test_a_threshold_is_the_quantile_up_to_a_bin(n: int, seed: int) -> None:
    drawn = np.random.default_rng(seed).lognormal(0.0, 0.3, n)
    quantile = np.sort(drawn)[int(np.ceil(0.95 * (n + 1) - 1e-9)) - 1]
    threshold = DistanceCounts.measure(drawn).threshold()
    assert threshold is not None
    assert quantile <= threshold < 1.0021 * max(quantile, EDGES[0])


def test_too_few_or_too_distant_lesions_give_no_threshold() -> None:
    assert DistanceCounts.zero().threshold() is None
    assert DistanceCounts.measure(np.ones(18)).threshold() is None
    assert DistanceCounts.measure(np.ones(19)).threshold() is not None
    assert DistanceCounts.measure(np.full(100, 1e6)).threshold() is None


def test_the_appearance_is_of_means_and_logarithms_of_deviations() -> None:
    rng = np.random.default_rng(0)
    fine = rng.standard_normal((3, 8, 8)).astype(np.float32)
    coarse = rng.standard_normal((2, 4, 4)).astype(np.float32)
    got = appearance(fine, 10.0 * coarse) - appearance(fine + 1.0, coarse)
    np.testing.assert_allclose(got[:5], [-1.0] * 3 + [np.log(10.0)] * 2, atol=5e-3)
    assert got.shape == (SIZE,)
    assert not got[5:].any()


def test_a_wide_network_has_an_appearance_of_the_same_length() -> None:
    """Its distances are nearly those of all its numbers: a projection keeps lengths."""
    rng = np.random.default_rng(0)
    fine = rng.standard_normal((2000, 2, 2, 2)).astype(np.float32)
    coarse = np.ones((200, 4, 4), dtype=np.float32)
    first, second = (appearance(fine[:, k], coarse) for k in range(2))
    assert first.shape == (SIZE,)
    apart = np.linalg.norm((fine[:, 0] - fine[:, 1]).mean(axis=(1, 2))) * np.sqrt(SIZE / 2200)
    assert np.linalg.norm(first - second) == pytest.approx(apart, rel=0.3)


def test_a_picture_of_one_colour_has_an_appearance() -> None:
    flat = appearance(np.ones((3, 8, 8), dtype=np.float32), np.ones((2, 4, 4), dtype=np.float32))
    assert np.isfinite(flat).all()
