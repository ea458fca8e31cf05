"""Test set and cross-validation folds of whole lesions, stratified by diagnosis.

Within a class the lesions are shuffled, then sorted by their numbers of images, largest first. The
test set takes lesions at equal distances; the others go to the folds in turn. So the folds of a
class differ by at most one lesion and by at most the images of its largest lesion.
"""

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from common.arrays import Bools, Ints
from common.data.dataset import Dataset, Lesions
from common.data.image import PSEUDO_LABEL, TRAIN
from common.errors import ConfigError, DataError

TEST = "test"

_MOST_FOLDS = 1_000_000


def holdout(dataset: Dataset, fraction: float, seed: int, *, leave: int = 1) -> Bools:
    """Choose the images of a test set.

    Each class gives the rounded ``fraction`` of its lesions, at least one, and keeps at least
    ``leave`` lesions where it has more than that, else one; a single lesion is never given.

    Parameters
    ----------
    fraction : share of the lesions, in [0, 1); 0 chooses none.

    Returns
    -------
    (n,) true for the images of the test set.

    Raises
    ------
    ConfigError
        If ``fraction`` is out of range.
    """
    if not 0 <= fraction < 1:
        raise ConfigError(f"the test fraction is {fraction}; choose one from 0 to below 1")
    rng = np.random.default_rng([seed, 0])
    chosen = np.zeros(len(dataset.by_lesion.sizes), dtype=np.bool_)
    for members in _classes(dataset.by_lesion, rng):
        n = len(members)
        taken = min(max(1, round(n * fraction)), n - leave if n > leave else n - 1)
        if fraction and taken:
            # Systematic sampling: equal chances for every lesion, even steps over the sizes.
            steps = (np.arange(taken) + rng.random()) * n / taken
            chosen[members[steps.astype(np.int64)]] = True
    return chosen[dataset.by_lesion.index]


def folds(dataset: Dataset, n_folds: int, seed: int) -> Ints:
    """Assign the lesions to ``n_folds`` folds; return each image's fold, shape (n,).

    Raises
    ------
    ConfigError
        If there is not at least one fold, or more than a million.
    """
    if not 1 <= n_folds <= _MOST_FOLDS:
        raise ConfigError(f"the number of folds is {n_folds}; choose 1 to {_MOST_FOLDS}")
    rng = np.random.default_rng([seed, 1])
    order = np.concatenate([*_classes(dataset.by_lesion, rng), np.array([], dtype=np.int64)])
    fold = np.empty(len(order), dtype=np.int64)
    # One deal through all classes, so that the folds' totals differ by one lesion too.
    fold[order] = np.arange(len(order)) % n_folds
    return fold[dataset.by_lesion.index]


def assign_splits(
    dataset: Dataset, test_fraction: float, n_folds: int, seed: int
) -> NDArray[np.str_]:
    """Give each image "test" or its fold number as text, shape (n,).

    A class with at least ``n_folds + 1`` lesions is in the test set and in every fold.
    """
    return _splits(dataset, holdout(dataset, test_fraction, seed, leave=n_folds), n_folds, seed)


def lasting_splits(dataset: Dataset, test_fraction: float, n_folds: int) -> NDArray[np.str_]:
    """Return splits (n,) for data that change: a lesion's name alone decides where it is.

    So no lesion moves between training, validation and testing, not even when another one is added,
    as differential privacy presupposes and a run that goes on from another. A rare class may have
    no test lesion, and none in a fold.
    """
    lesions = [str(name) for name in np.unique(dataset.lesions)]
    fold = [int(_share("fold", lesion) * n_folds) for lesion in lesions]
    test = np.array([lasting_test(lesion, test_fraction) for lesion in lesions])
    splits = np.where(test, TEST, np.array(fold).astype(np.str_))[dataset.by_lesion.index]
    return np.where(_pseudo(dataset), TRAIN, splits)


def lasting_test(lesion: str, test_fraction: float) -> bool:
    """Tell whether :func:`lasting_splits` tests on a lesion."""
    return _share(TEST, lesion) < test_fraction


def fold_numbers(splits: NDArray[np.str_]) -> Ints:
    """Return the fold of each image as a number.

    Parameters
    ----------
    splits : (n,) as text.

    Returns
    -------
    (n,) -1 for the test set, -2 for pseudo-labels.
    """
    numbers = np.where(splits == TEST, "-1", np.where(splits == TRAIN, "-2", splits))
    return numbers.astype(np.int64)


def _pseudo(dataset: Dataset) -> Bools:
    return np.array([image.dx_type == PSEUDO_LABEL for image in dataset.images], dtype=np.bool_)


def _share(purpose: str, lesion: str) -> float:
    """Return a number in [0, 1) that depends on a lesion's name and the purpose alone."""
    digest = hashlib.sha256(f"{purpose} {lesion}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def _splits(dataset: Dataset, test: Bools, n_folds: int, seed: int) -> NDArray[np.str_]:
    splits = np.full(len(dataset), TEST, dtype=f"<U{max(len(TEST), len(str(n_folds)))}")
    splits[~test] = folds(dataset.select(~test), n_folds, seed).astype(np.str_)
    return splits


def one_image_a_lesion(dataset: Dataset, contents: Sequence[str]) -> Bools:
    """Choose one image of each lesion by chance; return which, (n,).

    The chance is that of a hash of the image, so the choice is the same wherever the lesion lies.

    Parameters
    ----------
    contents : (n,) the SHA-256 of each image's bytes.
    """
    order = np.argsort(np.array(contents), kind="stable")
    first = np.unique(dataset.lesions[order], return_index=True)[1]
    chosen = np.zeros(len(dataset), dtype=np.bool_)
    chosen[order[first]] = True
    return chosen


def site_splits(
    dataset: Dataset, test_fraction: float, n_folds: int, seed: int
) -> NDArray[np.str_]:
    """Return the splits (n,) that the rows carry, or assign them where they carry none.

    Pseudo-labels are all for training. The sites of a simulated partition carry the splits of the
    pooled data, so that the federated and the pooled model are tested on the same lesions.

    Raises
    ------
    DataError
        If the rows carry a fold that ``n_folds`` does not have.
    """
    if (pseudo := _pseudo(dataset)).any():
        splits = np.full(len(dataset), TRAIN, dtype=f"<U{max(len(TRAIN), len(str(n_folds)))}")
        known = dataset.select(~pseudo)
        splits[~pseudo] = site_splits(known, test_fraction, n_folds, seed)
        return splits
    if not dataset.splits.any():
        return assign_splits(dataset, test_fraction, n_folds, seed)
    carried = {int(split) for split in dataset.splits if split != TEST}
    if carried and max(carried) >= n_folds:
        raise DataError(
            f"{dataset.folder}: the column split has {max(carried) + 1} folds, the run has "
            f"{n_folds}; set folds={max(carried) + 1} or partition again"
        )
    return dataset.splits


def _classes(lesions: Lesions, rng: np.random.Generator) -> Iterator[Ints]:
    """Yield the lesions of each class that occurs, in random order, larger ones first."""
    for label in np.unique(lesions.labels):
        members = rng.permutation(np.flatnonzero(lesions.labels == label))
        yield members[np.argsort(-lesions.sizes[members], kind="stable")]
