"""Every metric of a study, under many weightings of the same images at once.

A bootstrap wants each metric a thousand times; weights of one give the metric itself. The tests
hold all of it to scikit-learn's, whatever the weights.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from common.arrays import Bools, Floats
from common.statistics.confusion import ConfusionMetrics, mean_defined, ratio
from common.statistics.metrics import (
    CALIBRATION_BINS,
    area_under_curve,
    calibration_error,
    confidences,
    squared_errors,
)
from common.task import Task

Labels = NDArray[np.integer]

SPECIFICITY = 0.95
"""Specificity at which the sensitivity for melanoma is reported."""

MELANOMA = "mel"

SCALARS = {
    "balanced_accuracy": "balanced accuracy",
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
    "macro_auc": "macro AUC",
    "macro_average_precision": "macro average precision",
    "melanoma_sensitivity": "melanoma sensitivity at 95 % specificity",
    "calibration_error": "calibration error of the given diagnosis",
    "most_likely_calibration_error": "calibration error of the most likely one",
    "brier": "Brier score",
}
"""Metrics over all classes, and what they are called."""

CALIBRATION_ERRORS = ("calibration_error", "most_likely_calibration_error")

PER_CLASS = {
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "f1": "F1",
    "auc": "AUC",
    "average_precision": "Average precision",
}
"""Metrics of each class against the rest, named ``sensitivity/mel``."""


def measure(
    task: Task,
    labels: Labels,
    predicted: Labels,
    probabilities: NDArray[np.floating],
    weights: Floats,
) -> dict[str, Floats]:
    """Return every metric under every weighting.

    Parameters
    ----------
    task : the diagnoses.
    labels, predicted : (n,) true and predicted classes.
    probabilities : (n, n_classes) whose rows sum to 1.
    weights : (repeats, n) non-negative; in every row each class present has some.

    Returns
    -------
    The metrics of ``SCALARS`` and those ``PER_CLASS`` by name, (repeats,) each, in [0, 1] but the
    Brier score, which is in [0, 2]. What needs a class that is absent is nan, and means leave it
    out.

    References
    ----------
    Guo et al. (2017), equation 3 (calibration error); Brier (1950), equation 2; Hanley and McNeil
    (1982), the area as a probability; average precision as scikit-learn's, without interpolation.
    """
    return (
        _from_counts(task, labels, predicted, weights)
        | _from_ranks(task, labels, probabilities, weights)
        | _from_chances(labels, predicted, probabilities, weights)
    )


def weighted_confusion(
    labels: Labels, predicted: Labels, n_classes: int, weights: Floats
) -> Floats:
    """Return confusion matrices (repeats, n_classes, n_classes) by [true, predicted] class.

    Parameters
    ----------
    labels, predicted : (n,) true and predicted classes.
    weights : (repeats, n) non-negative.
    """
    cells = np.eye(n_classes**2)[labels * n_classes + predicted]
    return np.asarray((weights @ cells).reshape(-1, n_classes, n_classes))


@dataclass(frozen=True)
class RocCurve:
    """The ROC curve of a class under many weightings of the same records.

    Attributes
    ----------
    own, others : (repeats, scores) weight of the class's records, and of the others', at or above
        each score that occurs, the highest first.
    """

    own: Floats
    others: Floats

    @classmethod
    def of(cls, positive: Bools, scores: NDArray[np.floating], weights: Floats) -> Self:
        """Rank records.

        Parameters
        ----------
        positive : (n,) whether a record belongs to the class.
        scores : (n,) score of each record, higher for the class.
        weights : (repeats, n) non-negative; positives and negatives must each have some weight in
            every row.
        """
        order = np.argsort(-scores, kind="stable")
        # A threshold may only lie where the score changes.
        last = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
        ranked = weights[:, order]
        return cls(
            own=np.cumsum(ranked * positive[order], axis=1)[:, last],
            others=np.cumsum(ranked * ~positive[order], axis=1)[:, last],
        )

    def area(self) -> Floats:
        """Return the exact areas (repeats,) under the curves, in [0, 1]; ties count one half."""
        own, others = (
            np.diff(up_to, axis=1, prepend=0.0)[:, ::-1] for up_to in (self.own, self.others)
        )
        return area_under_curve(others, own)

    def average_precision(self) -> Floats:
        """Return scikit-learn's average precisions (repeats,), in [0, 1]."""
        # No weight at or above: no step either.
        precision = np.nan_to_num(ratio(self.own, self.own + self.others))
        steps = np.diff(self.own, axis=1, prepend=0.0) / self.own[:, -1:]
        return np.asarray((steps * precision).sum(axis=1))

    def sensitivity(self, false_positive_rate: float) -> Floats:
        """Return the highest sensitivities (repeats,) at false-positive rates up to this one."""
        # A rounding error must not move the threshold by a record.
        allowed = self.others <= (false_positive_rate + 1e-12) * self.others[:, -1:]
        return ratio(np.where(allowed, self.own, 0.0).max(axis=1), self.own[:, -1])


def _from_counts(
    task: Task, labels: Labels, predicted: Labels, weights: Floats
) -> dict[str, Floats]:
    """Return what follows from the confusion matrix."""
    counted = ConfusionMetrics.compute(
        weighted_confusion(labels, predicted, task.n_classes, weights)
    )
    # Here means are over the classes present, also where an absent one is predicted.
    f1 = np.where(np.isnan(counted.sensitivity), np.nan, counted.f1)
    return {
        "accuracy": counted.accuracy,
        "balanced_accuracy": counted.balanced_accuracy,
        "macro_f1": mean_defined(f1),
        **_named(task, "sensitivity", counted.sensitivity),
        **_named(task, "specificity", counted.specificity),
        **_named(task, "f1", f1),
    }


def _from_ranks(
    task: Task, labels: Labels, probabilities: NDArray[np.floating], weights: Floats
) -> dict[str, Floats]:
    """Return what follows from the order of the probabilities of each class."""
    shape = (len(weights), task.n_classes)
    auc, precision = np.full(shape, np.nan), np.full(shape, np.nan)
    sensitivity = np.full(len(weights), np.nan)
    for c in np.unique(labels):
        positive = labels == c
        if positive.all():
            continue
        curve = RocCurve.of(positive, probabilities[:, c], weights)
        auc[:, c], precision[:, c] = curve.area(), curve.average_precision()
        if task.codes[c] == MELANOMA:
            sensitivity = curve.sensitivity(1 - SPECIFICITY)
    return {
        "macro_auc": mean_defined(auc),
        "macro_average_precision": mean_defined(precision),
        "melanoma_sensitivity": sensitivity,
        **_named(task, "auc", auc),
        **_named(task, "average_precision", precision),
    }


def _from_chances(
    labels: Labels, predicted: Labels, probabilities: NDArray[np.floating], weights: Floats
) -> dict[str, Floats]:
    """Return how far the probabilities are from what happens."""
    p = probabilities.astype(np.float64)
    own = labels[:, None] == np.arange(p.shape[1])
    given, most_likely = (
        _calibration_error(labels, called, p, weights) for called in (predicted, p.argmax(axis=1))
    )
    return {
        "calibration_error": given,
        "most_likely_calibration_error": most_likely,
        "brier": weights @ squared_errors(own, p).sum(axis=1) / weights.sum(axis=1),
    }


def _calibration_error(labels: Labels, called: Labels, p: Floats, weights: Floats) -> Floats:
    """Return how far the probability of the class called is from how often it is right."""
    confidence, bins = confidences(p, called)
    surplus = ((called == labels) - confidence)[:, None] * np.eye(CALIBRATION_BINS)[bins]
    return calibration_error(weights @ surplus, weights.sum(axis=1))


def _named(task: Task, metric: str, values: Floats) -> dict[str, Floats]:
    return {f"{metric}/{dx}": values[:, c] for c, dx in enumerate(task.codes)}
