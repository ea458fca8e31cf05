"""What sites count about changes: diagnoses told apart, whatever a change prefers."""

import numpy as np
import pytest

from common.finetune.crosscheck import LEAST_IMAGES, MOST_IMAGES, PairCounts, chosen

LABELS = np.repeat([0, 1, 2], [40, 20, 8])
TRUE = np.eye(3)[LABELS]


def scores(seed: int, noise: float = 0.1) -> np.ndarray:
    return TRUE + noise * np.random.default_rng(seed).standard_normal(TRUE.shape)


def test_a_change_that_tells_all_apart_has_a_rate_of_one_and_its_opposite_none():
    rates = PairCounts.measure([scores(0), -scores(0), np.zeros_like(TRUE)], LABELS).rates()
    off = ~np.eye(3, dtype=bool)
    np.testing.assert_array_equal(rates[:, off], np.repeat([[1.0], [0.0], [0.0]], 6, axis=1))
    assert np.isnan(rates[:, ~off]).all()


def test_what_a_change_prefers_does_not_count():
    unsure = scores(1, noise=1.0)
    counts = PairCounts.measure([unsure, unsure + np.array([7.0, -3.0, 0.0])], LABELS)
    assert 0.5 < np.nanmin(counts.rates()) < np.nanmax(counts.rates()) < 1
    np.testing.assert_array_equal(counts.right[0], counts.right[1])


def test_rates_are_those_of_a_loop_over_images():
    found = scores(2, noise=0.7)
    expected = np.full((3, 3), np.nan)
    for a, b in [(0, 1), (0, 2), (1, 2)]:
        over = found[:, a] - found[:, b]
        middle = (over[a == LABELS].mean() + over[b == LABELS].mean()) / 2
        right = np.mean(over[a == LABELS] > middle), np.mean(over[b == LABELS] < middle)
        expected[a, b] = expected[b, a] = np.mean(right)
    np.testing.assert_allclose(PairCounts.measure([found], LABELS).rates()[0], expected)


def test_of_few_images_nothing_is_said_and_of_many_no_more():
    labels = np.repeat([0, 1, 2], [LEAST_IMAGES - 1, LEAST_IMAGES, 3 * MOST_IMAGES])
    counts = PairCounts.measure([np.eye(3)[labels]], labels)
    assert not counts.right[0, 0].any()
    assert not counts.right[0, :, 0].any()
    assert np.isnan(counts.rates()[0, 0]).all()
    assert counts.rates()[0, 1, 2] == 1
    assert np.bincount(labels[chosen(labels)]).tolist() == [0, LEAST_IMAGES, MOST_IMAGES]
    assert not len(chosen(labels[:0]))


@pytest.mark.parametrize("candidates", [1, 3])
def test_counts_of_no_images_add_nothing(candidates):
    counts = PairCounts.measure([scores(i) for i in range(candidates)], LABELS)
    total = counts + PairCounts.zero(candidates, 3)
    np.testing.assert_array_equal(total.right, counts.right)
    assert np.isnan(PairCounts.zero(candidates, 3).rates()).all()
