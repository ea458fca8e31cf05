"""Counts of a network's values add over sites, and ranges hold what they say."""

from functools import reduce
from operator import add

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from common.export.ranges import BINS, TensorCounts, bins_of, edges
from tests.examples import examples

tensors = arrays(np.float32, st.integers(1, 40), elements=st.floats(-60000, 60000, width=32))
pictures = st.lists(st.tuples(tensors, tensors), min_size=1, max_size=6)


@examples(50)
@given(pictures, st.randoms())
def test_parts_of_any_sizes_add_up_to_the_whole(drawn, random):
    whole = reduce(add, map(TensorCounts.measure, drawn))
    sites = [TensorCounts.zero(2) for _ in range(3)]
    for tensors_of_picture in drawn:
        at = random.randrange(3)
        sites[at] = sites[at] + TensorCounts.measure(tensors_of_picture)
    added = reduce(add, sites)
    np.testing.assert_array_equal(added.values, whole.values)
    assert added.pictures == len(drawn)
    for choice in ("widest", "percentile", "least-error"):
        assert added.ranges("ab", choice) == whole.ranges("ab", choice)


@examples(100)
@given(tensors)
def test_a_value_lies_between_the_edges_of_its_bin(values):
    bins = bins_of(values)
    assert ((bins >= 0) & (bins < BINS)).all()
    small = np.abs(values) < 2.0**-16
    assert (np.isin(bins[small], (BINS // 2 - 1, BINS // 2, BINS // 2 - 2, BINS // 2 + 1))).all()
    low, high = edges()[bins], edges()[bins + 1]
    assert ((low <= values) & (values <= high))[~small].all()


@examples(100)
@given(tensors)
def test_the_widest_range_holds_all_values_and_is_hardly_wider(values):
    low, high = TensorCounts.measure([values]).ranges(["x"], "widest")["x"]
    least, most = min(values.min(), 0.0), max(values.max(), 0.0)
    assert low <= least
    assert most <= high
    assert high - low <= 1.04 * (most - least) + 1e-4


def test_a_range_of_least_error_gives_up_what_is_far_away():
    values = np.random.default_rng(0).normal(0, 1, 100_000).astype(np.float32)
    values[0] = 1000.0
    counts = TensorCounts.measure([values])

    def error(low, high):
        """Quantise to 256 steps, independently of the histogram."""
        step = (high - low) / 255
        return (
            (np.clip(np.round((values - low) / step), 0, 255) * step + low - values) ** 2
        ).mean()

    spans = {c: counts.ranges(["x"], c)["x"] for c in ("widest", "percentile", "least-error")}
    assert spans["widest"][1] > 999
    assert spans["percentile"][1] == pytest.approx(3.9, abs=0.3)  # of 10,000 values, half of one
    tried = [spans["widest"], *((-f * 4.5, f * 1000.0) for f in np.linspace(0.2, 1, 9))]
    assert error(*spans["least-error"]) <= 1.1 * min(error(*each) for each in tried)
