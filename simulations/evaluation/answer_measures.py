"""How sure answers are and how often rightly: metrics under many weightings of the same images.

Sets, referral and screening promise something about lesions. So the images of a lesion share its
weight.
"""

import numpy as np
from numpy.typing import NDArray

from common.answers.answer import TARGETS
from common.answers.operating import target_members, targets_of
from common.answers.referral import RiskCoverage, confidences
from common.arrays import Bools, Floats
from common.statistics.confusion import ratio
from common.task import Task
from simulations.evaluation.answered import Answered

SHARES = {
    "coverage": "coverage of 95 % sets",
    "augrc": "AUGRC",
    "risk_of_all": "wrong of all",
    "risk_at_90": "wrong of the surest 90 %",
    "risk_at_80": "wrong of the surest 80 %",
    "mel_sensitivity": "melanoma screening, sensitivity",
    "mel_specificity": "melanoma screening, specificity",
    "malignant_sensitivity": "malignant screening, sensitivity",
    "malignant_specificity": "malignant screening, specificity",
}
"""Metrics in [0, 1], and what they are called."""

SIZES = {"set_size": "diagnoses in a set", "set_size_ratio": "times the pooled size"}
"""Mean sizes of sets, and what they are called: absolute, and beside sets by one threshold."""


AUGRCS = {
    "augrc": "largest probability",
    "augrc/margin": "margin to the second",
    "augrc/entropy": "entropy",
    "augrc/size": "size of the prediction set",
    "augrc/distance": "distance from the training lesions",
}
"""AUGRC by what it is that says how sure the model is, and what that is called."""


def measure_answers(
    task: Task,
    labels: NDArray[np.integer],
    probabilities: NDArray[np.floating],
    answered: Answered,
    weights: Floats,
) -> dict[str, Floats]:
    """Return the metrics of ``SHARES``, ``SIZES`` and ``AUGRCS`` by name, (repeats,) each.

    What the model does not answer, or no lesion is there for, is nan.

    Parameters
    ----------
    task : the diagnoses.
    labels : (n,) true classes.
    probabilities : (n, n_classes) whose rows sum to 1.
    answered : the model's answers about the same n images.
    weights : (repeats, n) non-negative, those of a lesion's images a share each.

    References
    ----------
    Traub et al. (2024), equation 7 (AUGRC); :class:`common.answers.referral.RiskCoverage`.
    """
    size, pooled = (
        _mean(members.sum(axis=1), weights) for members in (answered.inside, answered.inside_pooled)
    )
    covered = answered.inside[np.arange(len(labels)), labels]
    return {
        "coverage": _mean(covered, weights),
        "set_size": size,
        "set_size_ratio": size / pooled,
        **_referral(labels, probabilities, answered, weights),
        **_screening(task, labels, answered.flagged, weights),
    }


def risk_curve(
    labels: NDArray[np.integer],
    probabilities: NDArray[np.floating],
    weights: Floats,
) -> RiskCoverage:
    """Return how many likeliest diagnoses are wrong, the likeliest images first.

    Parameters
    ----------
    labels, probabilities, weights : (n,), (n, n_classes) and (repeats, n), as of
        `measure_answers`.
    """
    wrong = probabilities.argmax(axis=1) != labels
    return RiskCoverage.of(wrong, confidences(probabilities, "probability"), weights)


def _referral(
    labels: NDArray[np.integer],
    probabilities: NDArray[np.floating],
    answered: Answered,
    weights: Floats,
) -> dict[str, Floats]:
    curve = risk_curve(labels, probabilities, weights)
    wrong = probabilities.argmax(axis=1) != labels
    others = {
        "augrc/margin": confidences(probabilities, "margin"),
        "augrc/entropy": confidences(probabilities, "entropy"),
        "augrc/size": -answered.inside.sum(axis=1),
        "augrc/distance": -answered.distance,
    }
    return {
        "augrc": curve.augrc(),
        **{name: _augrc(wrong, sure, weights) for name, sure in others.items()},
        "risk_of_all": curve.risk(1.0),
        "risk_at_90": curve.risk(0.9),
        "risk_at_80": curve.risk(0.8),
    }


def _augrc(wrong: Bools, sure: Floats, weights: Floats) -> Floats:
    if np.isnan(sure).any():
        return np.full(len(weights), np.nan)
    return RiskCoverage.of(wrong, sure, weights).augrc()


def _screening(
    task: Task, labels: NDArray[np.integer], flagged: Floats, weights: Floats
) -> dict[str, Floats]:
    """Return sensitivity and specificity for each of ``TARGETS``; nan for those of no task's."""
    names = [f"{target}_{share}" for target in TARGETS for share in ("sensitivity", "specificity")]
    found = {name: np.full(len(weights), np.nan) for name in names}
    for column, target in enumerate(targets_of(task)):
        having = target_members(task)[labels, column]
        found[f"{target}_sensitivity"] = _mean(flagged[:, column], weights * having)
        found[f"{target}_specificity"] = _mean(1 - flagged[:, column], weights * ~having)
    return found


def _mean(values: Floats, weights: Floats) -> Floats:
    """Return the means (repeats,) of values (n,) under weights (repeats, n)."""
    return ratio(weights @ values, weights.sum(axis=1))
