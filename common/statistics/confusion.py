"""Metrics of confusion matrices: accuracy, sensitivity, F1, of many matrices at once.

Each has this implementation alone: for the added counts of a federation, for one model's
predictions and for all resamples of a bootstrap.
"""

from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from common.arrays import Floats, Ints


class ConfusionMetrics(NamedTuple):
    """Metrics of confusion matrices, in [0, 1]; each class against the rest.

    A ratio with denominator zero is nan, and means leave it out: a class without records has no
    sensitivity, a class never predicted no precision.

    Attributes
    ----------
    accuracy, balanced_accuracy, macro_f1 : (...); the last two are means over classes of
        sensitivity and F1.
    sensitivity, specificity, precision, f1 : (..., n_classes).
    """

    accuracy: Floats
    balanced_accuracy: Floats
    macro_f1: Floats
    sensitivity: Floats
    specificity: Floats
    precision: Floats
    f1: Floats

    @classmethod
    def compute(cls, confusion: Ints | Floats) -> Self:
        """Compute all of them.

        Parameters
        ----------
        confusion : (..., n_classes, n_classes) number or weight of records by [true, predicted]
            class.
        """
        hits = np.diagonal(confusion, axis1=-2, axis2=-1)
        positives, calls = confusion.sum(axis=-1), confusion.sum(axis=-2)
        n = confusion.sum(axis=(-2, -1))
        others = n[..., None] - positives
        sensitivity, f1 = ratio(hits, positives), ratio(2 * hits, positives + calls)
        return cls(
            accuracy=ratio(hits.sum(axis=-1), n),
            balanced_accuracy=mean_defined(sensitivity),
            macro_f1=mean_defined(f1),
            sensitivity=sensitivity,
            specificity=ratio(others - calls + hits, others),
            precision=ratio(hits, calls),
            f1=f1,
        )


def confusion_matrix(
    labels: NDArray[np.integer], predicted: NDArray[np.integer], n_classes: int
) -> Ints:
    """Return the number of records by [true, predicted] class, (n_classes, n_classes).

    Parameters
    ----------
    labels, predicted : (n,) true and predicted class, each in [0, n_classes).
    """
    return count((n_classes, n_classes), labels, predicted)


def balanced_shares(labels: NDArray[np.integer]) -> Floats:
    """Return what each record adds to balanced accuracy if it is right.

    Parameters
    ----------
    labels : (n,) true class.

    Returns
    -------
    (n,) shares that sum to 1: classes have equal shares, and so have the records of a class.
    """
    classes, index, counts = np.unique(labels, return_inverse=True, return_counts=True)
    return np.asarray(1 / counts[index] / len(classes))


def count(shape: tuple[int, ...], *indices: NDArray[np.integer]) -> Ints:
    """Return how often ``indices``, (n,) for each dimension, name each cell of a ``shape``."""
    flat = np.ravel_multi_index(indices, shape)
    return np.bincount(flat, minlength=int(np.prod(shape))).astype(np.int64).reshape(shape)


def ratio(numerator: NDArray[np.number], denominator: NDArray[np.number]) -> Floats:
    """Divide element by element, in the same shape; nan where the denominator is zero.

    Parameters
    ----------
    numerator, denominator : of the same shape.
    """
    result = np.full_like(denominator, np.nan, dtype=np.float64)
    np.divide(numerator, denominator, out=result, where=denominator > 0)
    return result


def mean_defined(values: Floats) -> Floats:
    """Return the means (...) over the last axis of values (..., k), nan left out."""
    defined = ~np.isnan(values)
    return ratio(np.where(defined, values, 0.0).sum(axis=-1), defined.sum(axis=-1))
