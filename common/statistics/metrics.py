"""Metrics of a classifier from counts that add over sites.

A site measures its own records as an `Evaluation`; the added evaluations of all sites are
the evaluation of the pooled records, and `Metrics` is computed from them once. A metric
is never averaged over sites.
"""

import math
from dataclasses import dataclass, fields
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from common.arrays import Bools, Floats, Ints
from common.json_types import Json
from common.statistics.confusion import (
    ConfusionMetrics,
    confusion_matrix,
    count,
    mean_defined,
    ratio,
)
from common.statistics.sums import Sums

SCORE_BINS = 1024
CALIBRATION_BINS = 15

# Score bins are uniform in asinh(z / _FLAT), z being the logit's distance from that of
# 1 / n_classes: close together where an undecided model puts its scores, and of constant
# relative width far out, where a confident one does. The range is float64's: probabilities
# below exp(-700) come close to underflow, those above 1 - exp(-36) round to 1.
_FLAT = 1e-3
_LOWEST, _HIGHEST = -700.0, 36.0


def score_edges(n_classes: int) -> Floats:
    """Return the inner edges of the score bins.

    Parameters
    ----------
    n_classes : number of classes, at least 2.

    Returns
    -------
    (SCORE_BINS - 1,) non-decreasing probabilities in [0, 1].
    """
    low, high = np.arcsinh(_LOWEST / _FLAT), np.arcsinh(_HIGHEST / _FLAT)
    distance: Floats = _FLAT * np.sinh(np.linspace(low, high, SCORE_BINS - 1))
    # The odds of 1 / n_classes are 1 / (n_classes - 1).
    return 1.0 / (1.0 + (n_classes - 1) * np.exp(-distance))


@dataclass(frozen=True)
class Evaluation(Sums):
    """What a set of records adds to the metrics.

    Attributes
    ----------
    confusion : (n_classes, n_classes) number of records by [true, predicted] class.
    scores : (n_classes, 2, SCORE_BINS) for each class, histograms of its predicted probability over
        the records of the other classes (0) and over its own (1).
    calibration : (2, CALIBRATION_BINS) number of records (0), and of those predicted correctly (1),
        by confidence: the probability given to the predicted class. With the sums below, the points
        of a reliability diagram.
    confidence : (CALIBRATION_BINS,) sum of the confidences in each bin; bins have equal width and
        are closed above.
    brier, log_loss : (1,) sums of the Brier score and of the negative log-likelihood in nats.
    """

    nonnegative: ClassVar[tuple[str, ...]] = (
        "confusion",
        "scores",
        "calibration",
        "confidence",
        "brier",
        "log_loss",
    )
    counted: ClassVar[str | None] = "confusion"

    confusion: Ints
    scores: Ints
    calibration: Ints
    confidence: Floats
    brier: Floats
    log_loss: Floats

    @classmethod
    def zero(cls, n_classes: int) -> Self:
        """Return the evaluation of no records.

        Raises
        ------
        ValueError
            If there are fewer than 2 classes.
        """
        none = np.zeros(0, dtype=np.int64)
        return cls.measure(none, none, np.zeros((0, n_classes)))

    @classmethod
    def measure(
        cls,
        labels: NDArray[np.integer],
        predicted: NDArray[np.integer],
        probabilities: NDArray[np.floating],
    ) -> Self:
        """Evaluate predictions.

        Parameters
        ----------
        labels, predicted : (n,) true and predicted class, each in [0, n_classes).
        probabilities : (n, n_classes) predicted probabilities in [0, 1]; every row sums to 1 within
            1e-3.

        Raises
        ------
        ValueError
            If a shape or a value is not as stated, or there are fewer than 2 classes.

        References
        ----------
        Brier (1950), "Verification of forecasts expressed in terms of probability",
        equation 2: squared differences summed over all classes, so in [0, 2].
        """
        _check(labels, predicted, probabilities)
        p = probabilities.astype(np.float64)
        n_classes = p.shape[1]
        own = labels[:, None] == np.arange(n_classes)
        confidence, bins = confidences(p, predicted)
        # A probability of zero would cost infinitely much; this is scikit-learn's floor.
        likelihood = np.maximum(p[own], np.finfo(np.float64).eps)
        return cls(
            confusion=confusion_matrix(labels, predicted, n_classes),
            scores=_score_histograms(own, p),
            calibration=np.stack(
                [
                    count((CALIBRATION_BINS,), bins),
                    count((CALIBRATION_BINS,), bins[labels == predicted]),
                ]
            ),
            confidence=_sums(bins, confidence),
            brier=np.array([squared_errors(own, p).sum()]),
            log_loss=np.array([-np.sum(np.log(likelihood))]),
        )


@dataclass(frozen=True)
class Metrics:
    """Metrics of the records behind an `Evaluation`.

    A ratio with denominator zero is nan, and averages leave it out: a class without
    records has no sensitivity and no AUC, a class never predicted no precision.

    Attributes
    ----------
    n : number of records.
    accuracy, balanced_accuracy, macro_f1, macro_auc : in [0, 1]; the last three are means over
        classes of sensitivity, F1 and AUC.
    expected_calibration_error, brier, log_loss : in [0, 1], [0, 2] and [0, 36.1] nats; 0 is best.
    sensitivity, specificity, precision, f1, auc : (n_classes,) in [0, 1], each class against the
        rest.
    confusion : (n_classes, n_classes) number of records by [true, predicted] class.
    """

    n: int
    accuracy: float
    balanced_accuracy: float
    macro_f1: float
    macro_auc: float
    expected_calibration_error: float
    brier: float
    log_loss: float
    sensitivity: Floats
    specificity: Floats
    precision: Floats
    f1: Floats
    auc: Floats
    confusion: Ints

    @classmethod
    def compute(cls, evaluation: Evaluation) -> Self:
        """Compute every metric from added counts."""
        n = evaluation.confusion.sum()
        auc = area_under_curve(evaluation.scores[:, 0], evaluation.scores[:, 1])
        surplus = evaluation.calibration[1] - evaluation.confidence
        counted = ConfusionMetrics.compute(evaluation.confusion)
        return cls(
            n=int(n),
            accuracy=float(counted.accuracy),
            balanced_accuracy=float(counted.balanced_accuracy),
            macro_f1=float(counted.macro_f1),
            macro_auc=float(mean_defined(auc)),
            expected_calibration_error=float(calibration_error(surplus, n)),
            brier=float(ratio(evaluation.brier[0], n)),
            log_loss=float(ratio(evaluation.log_loss[0], n)),
            sensitivity=counted.sensitivity,
            specificity=counted.specificity,
            precision=counted.precision,
            f1=counted.f1,
            auc=auc,
            confusion=evaluation.confusion,
        )

    def to_json(self, class_names: list[str]) -> dict[str, Json]:
        """Return the metrics as plain values, with None for nan.

        Parameters
        ----------
        class_names : names of the classes, in the order of the labels.

        Returns
        -------
        The scalars by name; ``"per_class"``, that class's metrics by name for each class; and
        ``"confusion"``, a list of rows of counts.

        Raises
        ------
        ValueError
            If the number of names is not the number of classes.
        """
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "confusion"}
        arrays = {name: v for name, v in values.items() if isinstance(v, np.ndarray)}
        rows = np.column_stack(list(arrays.values())).tolist()
        return {
            **{name: _plain(v) for name, v in values.items() if name not in arrays},
            "per_class": {
                class_name: dict(zip(arrays, map(_plain, row), strict=True))
                for class_name, row in zip(class_names, rows, strict=True)
            },
            "confusion": self.confusion.tolist(),
        }


def area_under_curve(others: Ints | Floats, own: Ints | Floats) -> Floats:
    """Return areas under ROC curves from histograms over ascending scores.

    Parameters
    ----------
    others, own : (..., bins) number or weight of the other classes' records, and of the class's
        own.

    Returns
    -------
    (...) areas in [0, 1]; nan where either histogram is empty. Off the exact area by at most half
    the share of pairs, one record of each kind, that fall into one bin: not at all where a bin
    holds one score.

    References
    ----------
    Hanley and McNeil (1982), "The meaning and use of the area under a receiver operating
    characteristic (ROC) curve": the Mann-Whitney statistic, ties counting one half.
    """
    lower = np.cumsum(others, axis=-1) - others
    wins = (own * (2 * lower + others)).sum(axis=-1)
    return ratio(wins, 2 * own.sum(axis=-1) * others.sum(axis=-1))


def confidences(probabilities: Floats, predicted: NDArray[np.integer]) -> tuple[Floats, Ints]:
    """Return the probability given to each predicted class, and its calibration bin.

    Parameters
    ----------
    probabilities : (n, n_classes) in [0, 1].
    predicted : (n,) classes.

    Returns
    -------
    Probabilities (n,) and bins (n,), in [0, CALIBRATION_BINS); bins are closed above, as in Guo et
    al. (2017).
    """
    index = predicted[:, None].astype(np.int64)
    confidence = np.take_along_axis(probabilities, index, axis=1)[:, 0]
    bins = np.ceil(confidence * CALIBRATION_BINS).astype(np.int64) - 1
    return confidence, np.maximum(bins, 0)  # a confidence of exactly 0 belongs to the first


def calibration_error(surplus: Floats, n: Ints | Floats) -> Floats:
    """Return expected calibration errors (...), in [0, 1].

    Parameters
    ----------
    surplus : (..., CALIBRATION_BINS) number or weight of a bin's records that are right, minus the
        sum of their confidences.
    n : (...) number or weight of all records.

    References
    ----------
    Guo et al. (2017), "On calibration of modern neural networks", equation 3: the
    expected calibration error over bins of equal width.
    """
    return ratio(np.abs(surplus).sum(axis=-1), n)


def squared_errors(own: Bools, probabilities: Floats) -> Floats:
    """Return the errors whose sum over the classes is a record's Brier score.

    Parameters
    ----------
    own : (n, n_classes) whether the class is the record's.
    probabilities : (n, n_classes) in [0, 1].

    Returns
    -------
    (n, n_classes) squared errors in [0, 1].
    """
    return np.asarray((probabilities - own) ** 2)


def _check(
    labels: NDArray[np.integer],
    predicted: NDArray[np.integer],
    probabilities: NDArray[np.floating],
) -> None:
    if probabilities.ndim != 2 or probabilities.shape[1] < 2:
        raise ValueError(f"probabilities are {probabilities.shape}, expected (n, n_classes >= 2)")
    n, n_classes = probabilities.shape
    for name, values in (("labels", labels), ("predicted", predicted)):
        if values.shape != (n,) or not np.issubdtype(values.dtype, np.integer):
            raise ValueError(f"{name} are {values.dtype}{values.shape}, expected integers ({n},)")
        if not ((values >= 0) & (values < n_classes)).all():
            raise ValueError(f"{name} must lie in [0, {n_classes})")
    if not ((probabilities >= 0) & (probabilities <= 1)).all():
        raise ValueError("probabilities must lie in [0, 1]")
    if not (np.abs(probabilities.sum(axis=1) - 1) <= 1e-3).all():
        raise ValueError("every row of probabilities must sum to 1")


def _sums(bins: Ints, values: Floats) -> Floats:
    """Sum the values in each calibration bin."""
    return np.bincount(bins, weights=values, minlength=CALIBRATION_BINS).astype(np.float64)


def _score_histograms(own: Bools, p: Floats) -> Ints:
    n_classes = p.shape[1]
    # Comparing with fixed edges, not computing a bin number, puts a probability into the
    # same bin whatever batch it comes in.
    bins = np.searchsorted(score_edges(n_classes), p, side="right")
    classes = np.broadcast_to(np.arange(n_classes), p.shape)
    return count(
        (n_classes, 2, SCORE_BINS), classes.ravel(), own.ravel().astype(np.int64), bins.ravel()
    )


def _plain(value: int | float) -> int | float | None:
    return None if math.isnan(value) else value
