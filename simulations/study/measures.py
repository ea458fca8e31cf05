"""Every metric of a study, under many weightings of the same images at once.

A bootstrap wants each metric a thousand times; weights of one give the metric itself. The tests
hold all of it to scikit-learn's, whatever the weights.
"""

import numpy as np
from numpy.typing import NDArray

from common.data.dataset import DIAGNOSES
from common.statistics.metrics import CALIBRATION_BINS

Floats = NDArray[np.float64]
Ints = NDArray[np.integer]

SPECIFICITY = 0.95
"""At which the sensitivity for melanoma is reported."""

MELANOMA = DIAGNOSES.index("mel")

SCALARS = {
    "balanced_accuracy": "balanced accuracy",
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
    "macro_auc": "macro AUC",
    "macro_average_precision": "macro average precision",
    "melanoma_sensitivity": "melanoma sensitivity at 95 % specificity",
    "calibration_error": "expected calibration error",
    "brier": "Brier score",
}
"""Metrics over all classes, and what they are called."""

PER_CLASS = {
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "f1": "F1",
    "auc": "AUC",
    "average_precision": "Average precision",
}
"""Metrics of each class against the rest, named ``sensitivity/mel``."""


def measure(
    labels: Ints, predicted: Ints, probabilities: NDArray[np.floating], weights: Floats
) -> dict[str, Floats]:
    """Return every metric under every weighting.

    Parameters
    ----------
    labels, predicted : (n,) true and predicted classes.
    probabilities : (n, n_classes) whose rows sum to 1.
    weights : (repeats, n) non-negative; in every row each class present has some.

    Returns
    -------
    dict of str to (repeats,) float64
        The metrics of ``SCALARS`` and those ``PER_CLASS``, in [0, 1] but the Brier score, which
        is in [0, 2]. What needs a class that is absent is nan, and means leave it out.

    References
    ----------
    Guo et al. (2017), equation 3 (calibration error); Brier (1950), equation 2; Hanley and McNeil
    (1982), the area as a probability; average precision as scikit-learn's, without interpolation.
    """
    found = _from_counts(labels, predicted, weights)
    found |= _from_ranks(labels, probabilities, weights)
    found |= _from_chances(labels, predicted, probabilities, weights)
    return found


def weighted_auc(
    positive: NDArray[np.bool_], scores: NDArray[np.floating], weights: Floats
) -> Floats:
    """Return the exact area under the ROC curve for many weightings of the same records.

    Parameters
    ----------
    positive : bool ndarray of shape (n,)
        Whether a record belongs to the class.
    scores : floating ndarray of shape (n,)
        Score of each record, higher for the class.
    weights : float64 ndarray of shape (repeats, n)
        Non-negative; positives and negatives must each have some weight in every row.

    Returns
    -------
    float64 ndarray of shape (repeats,)
        In [0, 1]: weight of the pairs in which the positive scores higher, ties counting
        one half, over the weight of all pairs (Hanley and McNeil 1982).
    """
    negatives = np.flatnonzero(~positive)
    negatives = negatives[np.argsort(scores[negatives])]
    ranked, own = scores[negatives], scores[positive]
    cumulative = np.pad(np.cumsum(weights[:, negatives], axis=1), ((0, 0), (1, 0)))
    below = cumulative[:, np.searchsorted(ranked, own, side="left")]
    up_to = cumulative[:, np.searchsorted(ranked, own, side="right")]
    own_weights = weights[:, positive]
    wins = (own_weights * (below + up_to)).sum(axis=1) / 2
    return np.asarray(wins / (own_weights.sum(axis=1) * cumulative[:, -1]))


def recalls(labels: Ints, predicted: Ints, weights: Floats, classes: Ints) -> Floats:
    """Return the sensitivity (repeats, k) for each of the classes (k,), all of which occur."""
    members = (labels[:, None] == classes).astype(np.float64)
    return np.asarray((weights @ (members * (predicted == labels)[:, None])) / (weights @ members))


def _from_counts(labels: Ints, predicted: Ints, weights: Floats) -> dict[str, Floats]:
    """Return what follows from the confusion matrix."""
    classes = np.arange(len(DIAGNOSES))
    own = (labels[:, None] == classes).astype(np.float64)
    called = (predicted[:, None] == classes).astype(np.float64)
    positives, calls, hits = weights @ own, weights @ called, weights @ (own * called)
    total = weights.sum(axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        sensitivity = hits / positives
        specificity = (total - positives - calls + hits) / (total - positives)
        f1 = np.where(positives > 0, 2 * hits / (positives + calls), np.nan)
    return {
        "accuracy": hits.sum(axis=1) / total[:, 0],
        "balanced_accuracy": np.nanmean(sensitivity, axis=1),
        "macro_f1": np.nanmean(f1, axis=1),
        **_named("sensitivity", sensitivity),
        **_named("specificity", specificity),
        **_named("f1", f1),
    }


def _from_ranks(
    labels: Ints, probabilities: NDArray[np.floating], weights: Floats
) -> dict[str, Floats]:
    """Return what follows from the order of the probabilities of each class."""
    shape = (len(weights), len(DIAGNOSES))
    auc, precision = np.full(shape, np.nan), np.full(shape, np.nan)
    sensitivity = np.full(len(weights), np.nan)
    for c in np.unique(labels):
        positive, scores = labels == c, probabilities[:, c]
        if positive.all():
            continue
        auc[:, c] = weighted_auc(positive, scores, weights)
        true, false = _curve(positive, scores, weights)
        precision[:, c] = _average_precision(true, false)
        if c == MELANOMA:
            sensitivity = _sensitivity(true, false)
    return {
        "macro_auc": _mean(auc),
        "macro_average_precision": _mean(precision),
        "melanoma_sensitivity": sensitivity,
        **_named("auc", auc),
        **_named("average_precision", precision),
    }


def _from_chances(
    labels: Ints, predicted: Ints, probabilities: NDArray[np.floating], weights: Floats
) -> dict[str, Floats]:
    """Return how far the probabilities are from what happens."""
    p = probabilities.astype(np.float64)
    confidence = np.take_along_axis(p, predicted[:, None].astype(np.int64), axis=1)[:, 0]
    # Closed above, as in common.statistics.metrics.
    number = np.maximum(np.ceil(confidence * CALIBRATION_BINS).astype(np.int64) - 1, 0)
    surplus = ((predicted == labels) - confidence)[:, None] * np.eye(CALIBRATION_BINS)[number]
    own = labels[:, None] == np.arange(p.shape[1])
    total = weights.sum(axis=1)
    return {
        "calibration_error": np.abs(weights @ surplus).sum(axis=1) / total,
        "brier": weights @ ((p - own) ** 2).sum(axis=1) / total,
    }


def _curve(
    positive: NDArray[np.bool_], scores: NDArray[np.floating], weights: Floats
) -> tuple[Floats, Floats]:
    """Return the weight of own and other records at or above each score, the highest first."""
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    ranked = weights[:, order]
    true = np.cumsum(ranked * positive[order], axis=1)[:, last]
    false = np.cumsum(ranked * ~positive[order], axis=1)[:, last]
    return true, false


def _average_precision(true: Floats, false: Floats) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.nan_to_num(true / (true + false))  # no weight at or above: no step either
    steps = np.diff(true, axis=1, prepend=0.0) / true[:, -1:]
    return np.asarray((steps * precision).sum(axis=1))


def _sensitivity(true: Floats, false: Floats) -> Floats:
    """Return the highest sensitivity at which the specificity is still as asked."""
    # A rounding error must not move the threshold by a record.
    allowed = false / false[:, -1:] <= 1 - SPECIFICITY + 1e-12
    return np.asarray(np.where(allowed, true / true[:, -1:], 0.0).max(axis=1))


def _mean(values: Floats) -> Floats:
    known = values[:, ~np.isnan(values[0])]
    return np.asarray(known.mean(axis=1) if known.size else values[:, 0])


def _named(metric: str, values: Floats) -> dict[str, Floats]:
    return {f"{metric}/{dx}": values[:, c] for c, dx in enumerate(DIAGNOSES)}
