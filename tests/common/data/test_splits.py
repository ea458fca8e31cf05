"""Splits keep lesions whole, leave nothing out and put every class everywhere."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.data.dataset import Dataset
from common.data.image import Image
from common.data.splits import TEST, assign_splits, folds, holdout, site_splits
from common.errors import ConfigError, DataError
from common.task import HAM10000


def data_of(lesions: list[tuple[int, int]]) -> Dataset:
    """Make up lesions, each given by its label and its number of images."""
    images = [
        Image(f"{number:04}_{image}", f"L{number:04}", HAM10000.codes[label], "", None, "", "")
        for number, (label, size) in enumerate(lesions)
        for image in range(size)
    ]
    return Dataset(Path("made-up"), tuple(images), {})


datasets = st.lists(st.tuples(st.integers(0, 6), st.integers(1, 6)), min_size=1, max_size=60).map(
    data_of
)


@given(datasets, st.floats(0, 0.99), st.integers(1, 6), st.integers(0, 2**32))
def test_splits_are_exhaustive_deterministic_and_of_whole_lesions(
    data: Dataset, fraction: float, n_folds: int, seed: int
) -> None:
    splits = assign_splits(data, fraction, n_folds, seed)
    assert set(splits) <= {TEST, *map(str, range(n_folds))}
    assert len(set(zip(data.lesions, splits, strict=True))) == len(data.by_lesion.sizes)
    np.testing.assert_array_equal(splits, assign_splits(data, fraction, n_folds, seed))


@given(datasets, st.floats(0.01, 0.99), st.integers(1, 6), st.integers(0, 2**32))
def test_a_class_with_enough_lesions_is_in_the_test_set_and_in_every_fold(
    data: Dataset, fraction: float, n_folds: int, seed: int
) -> None:
    splits = assign_splits(data, fraction, n_folds, seed)
    for label, lesions in enumerate(np.bincount(data.by_lesion.labels, minlength=7)):
        found = set(splits[data.labels == label])
        if lesions > n_folds:
            assert len(found) == n_folds + 1
        elif lesions > 1:
            assert TEST in found
            assert len(found) > 1
        elif lesions:
            assert TEST not in found


@given(datasets, st.integers(1, 6), st.integers(0, 2**32))
def test_folds_differ_by_one_lesion_and_by_the_largest_lesions(
    data: Dataset, n_folds: int, seed: int
) -> None:
    fold = folds(data, n_folds, seed)
    for label in np.unique(data.labels):
        own = data.labels == label
        lesions = [len(set(data.lesions[own & (fold == f)])) for f in range(n_folds)]
        images = [int(np.sum(own & (fold == f))) for f in range(n_folds)]
        assert max(lesions) - min(lesions) <= 1
        assert max(images) - min(images) <= data.by_lesion.sizes.max()


def test_the_test_set_has_its_share_of_lesions_and_images() -> None:
    sizes = [1] * 700 + [2] * 200 + [3] * 70 + [6] * 30
    data = data_of([(5, size) for size in sizes])
    test = holdout(data, 0.2, seed=0)
    assert len(set(data.lesions[test])) == 200
    assert abs(test.mean() - 0.2) < 6 / len(data)


def test_no_test_set_on_request() -> None:
    assert not holdout(data_of([(0, 1), (0, 1)]), 0, seed=0).any()


def test_a_site_keeps_the_splits_of_the_pooled_data() -> None:
    data = data_of([(0, 1)] * 4)
    np.testing.assert_array_equal(
        site_splits(data, 0.5, 2, seed=3), assign_splits(data, 0.5, 2, seed=3)
    )
    pooled = data.with_splits([TEST, "0", "4", "4"])
    np.testing.assert_array_equal(site_splits(pooled, 0.5, 5, seed=3), pooled.splits)
    with pytest.raises(DataError, match="has 5 folds, the run has 3; set folds=5 or"):
        site_splits(pooled, 0.5, 3, seed=3)


def test_impossible_numbers_are_refused() -> None:
    data = data_of([(0, 1)])
    with pytest.raises(ConfigError, match=r"test fraction is 1\.0"):
        holdout(data, 1.0, seed=0)
    with pytest.raises(ConfigError, match="number of folds is 0"):
        folds(data, 0, seed=0)


@pytest.mark.real_data
def test_the_real_data_splits_evenly(real_data: Path) -> None:
    data = Dataset.open(real_data)
    splits = assign_splits(data, 0.2, 5, seed=0)
    for label in range(len(HAM10000.codes)):
        own = splits[data.labels == label]
        assert abs(np.mean(own == TEST) - 0.2) < 0.02
        counts = np.unique(own[own != TEST], return_counts=True)[1]
        assert np.ptp(counts) <= 6
