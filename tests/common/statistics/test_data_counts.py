"""Counts of what sites have: they add over any partition, and hide groups of few lesions."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.data.groups import COLUMNS, HISTOGRAMS, groups
from common.errors import ReplyError
from common.statistics.data_counts import IMAGES, LESIONS, DataCounts, GroupedImages
from common.task import HAM10000, ISIC2019, Task
from tests.records import total


@st.composite
def images(draw: Any, task: Task = HAM10000) -> GroupedImages:
    """Draw images of some lesions in any groups, some of these common and most of them rare."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = draw(st.integers(0, 120))
    lesions = rng.integers(max(1, n // draw(st.integers(1, 4))), size=n)
    numbers = {}
    for name in HISTOGRAMS:
        size = len(groups(name, task))
        numbers[name] = rng.choice(size, n, p=rng.dirichlet(np.full(size, 0.2)))
    return GroupedImages(lesions, numbers, rng.random((n, len(COLUMNS))) < rng.random(len(COLUMNS)))


@given(drawn=images(), sites=st.integers(1, 6), seed=st.integers(0, 1000))
def test_any_partition_of_the_lesions_adds_up_to_the_pooled_counts(drawn, sites, seed):
    site = np.random.default_rng(seed).integers(sites, size=1000)[drawn.lesions]
    parts = [drawn.select(np.flatnonzero(site == s)) for s in range(sites)]
    added = total([DataCounts.measure(part, HAM10000) for part in parts])
    pooled = DataCounts.measure(drawn, HAM10000)
    for name, array in pooled.to_record().items():
        if name != "columns":  # of sites, not of images
            np.testing.assert_array_equal(getattr(added, name), array)
    with_any = [[part.filled[:, c].any() for part in parts] for c in range(len(COLUMNS))]
    np.testing.assert_array_equal(added.columns, np.sum(with_any, axis=1))


@given(drawn=images())
def test_counts_are_those_of_a_slow_count(drawn):
    counts = DataCounts.measure(drawn, HAM10000)
    for name in HISTOGRAMS:
        table = getattr(counts, name)
        for group in range(len(groups(name, HAM10000))):
            chosen = drawn.numbers[name] == group
            assert table[IMAGES, group] == chosen.sum()
            assert table[LESIONS, group] == len(set(drawn.lesions[chosen].tolist()))
        assert not table[:, -1].any()


@given(drawn=images(), least=st.integers(1, 30))
def test_no_group_of_fewer_lesions_is_told_not_even_by_what_is_left(drawn, least):
    """Either all images are in groups large enough, or none is counted at all."""
    told, exact = (DataCounts.measure(drawn, HAM10000, n) for n in (least, 0))
    for name in (*HISTOGRAMS, "filled"):
        for shown, true in zip(_by_histogram(told, name), _by_histogram(exact, name), strict=True):
            lesions = shown[LESIONS]
            assert ((lesions == 0) | (lesions >= least)).all()
            np.testing.assert_array_equal(shown[IMAGES] > 0, lesions > 0)
            kept = shown[:, :-1] > 0
            np.testing.assert_array_equal(shown[:, :-1][kept], true[:, :-1][kept])
            assert shown[IMAGES].sum() in (0, len(drawn.lesions))
            if shown[IMAGES].sum() == 0:
                assert len(np.unique(drawn.lesions)) < least
            # What is hidden cannot be found from the total: it is two groups, or all there are.
            hidden = (true[IMAGES, :-1] > 0) & (shown[IMAGES, :-1] == 0)
            assert hidden.sum() != 1 or (true[IMAGES, :-1] > 0).sum() == 1


def _by_histogram(counts: DataCounts, name: str) -> np.ndarray:
    array = getattr(counts, name)
    return array if array.ndim == 3 else array[None]


@pytest.mark.parametrize("task", [HAM10000, ISIC2019])
def test_a_record_of_another_task_is_refused(task):
    zero = DataCounts.zero(task)
    assert zero.from_record(zero.to_record()).to_record().keys() == zero.to_record().keys()
    other = DataCounts.zero(Task.of(("a", "b")))
    with pytest.raises(ReplyError, match="'diagnosis' is"):
        zero.from_record(other.to_record())
    with pytest.raises(ReplyError, match="negative"):
        zero.from_record({**zero.to_record(), "age": zero.age - 1})
