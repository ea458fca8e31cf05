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

TENSORS = {"a": 2, "b": 3}
values = st.floats(-60000, 60000, width=32)
lists = arrays(np.float32, st.integers(1, 40), elements=values)
pictures = st.lists(
    st.tuples(*(arrays(np.float32, (2, n, 2, 3), elements=values) for n in TENSORS.values())),
    min_size=1,
    max_size=5,
)


@examples(50)
@given(pictures, st.randoms())
def test_parts_of_any_sizes_add_up_to_the_whole(drawn, random):
    whole = TensorCounts.zero(TENSORS)
    sites = [TensorCounts.zero(TENSORS) for _ in range(3)]
    for maps in drawn:
        at = random.randrange(3)
        sites[at] += TensorCounts.measure(maps)
        whole += TensorCounts.measure(maps)
    added = reduce(add, sites)
    np.testing.assert_array_equal(added.values, whole.values)
    assert added.ranges(TENSORS) == whole.ranges(TENSORS)
    for name, mean in added.means(TENSORS).items():
        pooled = np.stack([maps["ab".index(name)] for maps in drawn])
        np.testing.assert_allclose(mean, pooled.mean(axis=(0, 1, 3, 4)), atol=0.1, rtol=1e-4)


@examples(100)
@given(lists)
def test_a_value_lies_between_the_edges_of_its_bin(values):
    bins = bins_of(values)
    assert ((bins >= 0) & (bins < BINS)).all()
    small = np.abs(values) < 2.0**-16
    assert (np.isin(bins[small], (BINS // 2 - 1, BINS // 2, BINS // 2 - 2, BINS // 2 + 1))).all()
    low, high = edges()[bins], edges()[bins + 1]
    assert ((low <= values) & (values <= high))[~small].all()


def steps_error(values, low, high):
    """Return the mean squared error of 256 steps, independently of the histogram."""
    step = (high - low) / 255
    rounded = np.clip(np.round((values - low) / step), 0, 255) * step + low
    return ((rounded - values) ** 2).mean()


@pytest.mark.parametrize("power", [1, 3])
def test_a_range_makes_about_the_least_error(power):
    """Of values with ever longer tails, ever more is cut."""
    values = np.random.default_rng(0).normal(0.1, 1, (1, 1, 100, 1000)).astype(np.float32) ** power
    low, high = TensorCounts.measure([values]).ranges({"x": 1})["x"]
    least, most = values.min(), values.max()
    tried = [steps_error(values, f * least, f * most) for f in np.linspace(0.1, 1, 91)]
    assert steps_error(values, low, high) <= 1.05 * min(tried)
    if power > 1:
        assert min(tried) < 0.97 * tried[-1]
        assert least < low
        assert high < most
