"""Bootstrap intervals that resample lesions, never images."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from common.arrays import Floats
from common.statistics.confusion import ConfusionMetrics
from simulations.evaluation.measures import CALIBRATION_ERRORS, RocCurve, weighted_confusion

Interval = tuple[float, float]
Predicted = tuple[NDArray[np.integer], NDArray[np.floating]]
"""Predicted classes (n,) and probabilities (n, n_classes) of one model."""


def bootstrap(
    labels: NDArray[np.integer],
    predicted: NDArray[np.integer],
    probabilities: NDArray[np.floating],
    lesions: ArrayLike,
    *,
    seed: int,
    repeats: int = 1000,
) -> dict[str, Interval]:
    """Return 95 % percentile intervals of a model's metrics.

    Lesions are drawn with replacement within their class, and bring all their images.
    Drawing within classes keeps every class in every resample, so that balanced accuracy
    and AUC are always defined; the interval is that of a test set with this class mix.

    Parameters
    ----------
    labels, predicted : (n,) true and predicted class of each image.
    probabilities : (n, n_classes) predicted probabilities, in [0, 1].
    lesions : (n,) identifier of the lesion that each image shows.
    seed : seed of the resamples.
    repeats : number of resamples.

    Returns
    -------
    Lower and upper bound of ``"accuracy"``, ``"balanced_accuracy"`` and ``"macro_auc"``, each in
    [0, 1]; the last two are means over the classes present.

    Raises
    ------
    ValueError
        If fewer than two classes are present, or the images of a lesion differ in class.

    References
    ----------
    Rutter (2000), "Bootstrap estimation of diagnostic accuracy with patient-clustered
    data", Academic Radiology 7(6); Efron and Tibshirani (1993), "An introduction to the
    bootstrap", section 13.3 (percentile interval).
    """
    weights = resample(labels, lesions, seed=seed, repeats=repeats)
    values = _metrics(labels, (predicted, probabilities), weights)
    return {name: interval(v) for name, v in values.items()}


def point_estimates(
    labels: NDArray[np.integer],
    predicted: NDArray[np.integer],
    probabilities: NDArray[np.floating],
) -> dict[str, float]:
    """Return the exact metrics that `bootstrap` gives intervals of, under the same names.

    At least two classes must be present.

    Parameters
    ----------
    labels, predicted : (n,) true and predicted class of each image.
    probabilities : (n, n_classes) predicted probabilities.
    """
    once = np.ones((1, len(labels)))
    values = _metrics(labels, (predicted, probabilities), once)
    return {name: float(v[0]) for name, v in values.items()}


def paired_difference(
    labels: NDArray[np.integer],
    first: Predicted,
    second: Predicted,
    lesions: ArrayLike,
    *,
    seed: int,
    repeats: int = 1000,
) -> dict[str, Interval]:
    """Return 95 % percentile intervals of the first model's metrics minus the second's.

    Both models are evaluated on the same resamples, so that what makes a resample easy or
    hard for both cancels. Resamples and errors are those of `bootstrap`.

    Parameters
    ----------
    labels : (n,) true class of each image.
    first, second : predicted classes (n,) and probabilities (n, n_classes) of each model.
    lesions : (n,) identifier of the lesion that each image shows.
    seed, repeats : as in `bootstrap`.

    Returns
    -------
    Lower and upper bound of the differences in ``"accuracy"``, ``"balanced_accuracy"`` and
    ``"macro_auc"``, each in [-1, 1].
    """
    weights = resample(labels, lesions, seed=seed, repeats=repeats)
    a, b = _metrics(labels, first, weights), _metrics(labels, second, weights)
    return {name: interval(a[name] - b[name]) for name in a}


def resample(
    labels: NDArray[np.integer], lesions: ArrayLike, *, seed: int | Sequence[int], repeats: int
) -> Floats:
    """Return how often each image occurs in each resample of lesions within classes.

    Parameters
    ----------
    labels, lesions : (n,) true class of each image, and the lesion that it shows.
    seed, repeats : as in `bootstrap`.

    Returns
    -------
    (repeats, n) whole numbers, the same for all images of a lesion.

    Raises
    ------
    ValueError
        If fewer than two classes are present, or the images of a lesion differ in class.
    """
    _, first, lesion = np.unique(np.asarray(lesions), return_index=True, return_inverse=True)
    lesion_class = labels[first]
    if (lesion_class[lesion] != labels).any():
        raise ValueError("images of one lesion must have one class")
    classes = np.unique(lesion_class)
    if len(classes) < 2:
        raise ValueError("intervals need lesions of at least two classes")
    rng = np.random.default_rng(seed)
    times = np.empty((repeats, len(lesion_class)))
    for c in classes:
        members = np.flatnonzero(lesion_class == c)
        evenly = np.full(len(members), 1 / len(members))
        times[:, members] = rng.multinomial(len(members), evenly, size=repeats)
    return times[:, lesion]


def _metrics(
    labels: NDArray[np.integer], predictions: Predicted, weights: Floats
) -> dict[str, Floats]:
    """Return each metric (repeats,) under each row of weights (repeats, n)."""
    predicted, probabilities = predictions
    confusion = weighted_confusion(labels, predicted, probabilities.shape[1], weights)
    counted = ConfusionMetrics.compute(confusion)
    curves = (RocCurve.of(labels == c, probabilities[:, c], weights) for c in np.unique(labels))
    return {
        "accuracy": counted.accuracy,
        "balanced_accuracy": counted.balanced_accuracy,
        "macro_auc": np.mean([curve.area() for curve in curves], axis=0),
    }


def metric_interval(metric: str, value: float, resamples: Floats) -> Interval:
    """Return the 95 % interval of a metric's value, from its resamples (repeats,).

    A calibration error adds up distances, and a resample is noisier than the data: its distances
    are larger on average. So its resamples are moved until their mean is the value.
    """
    if metric in CALIBRATION_ERRORS:
        resamples = np.maximum(resamples - resamples.mean() + value, 0.0)
    return interval(resamples)


def interval(values: Floats, level: float = 0.95) -> Interval:
    """Return the percentile interval of resampled values (repeats,)."""
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
