"""By which rule a diagnosis is named, or an image flagged.

``likeliest``: the diagnosis with the largest probability. ``balanced``: the one whose probability
is largest beside its base rate, the best rule for balanced accuracy. Screening: whether a target,
melanoma or any malignant diagnosis, is likely enough that few are missed; its threshold follows
from counts of calibration lesions that add over sites.
"""

from dataclasses import dataclass

import numpy as np

from common.answers.answer import Target
from common.answers.conformal import lesions_needed, strictest_threshold
from common.arrays import Bools, Floats, Ints
from common.errors import ConfigError
from common.statistics.metrics import score_edges
from common.statistics.proportions import wilson
from common.task import Task

SENSITIVITY = 0.95
"""Sensitivity that a screening rule is to have, unless another one is set."""

_MELANOMA = "mel"
TARGET_NAMES: dict[Target, str] = {"mel": "melanoma", "malignant": "malignant lesions"}
"""What a screening rule looks for, in words."""


@dataclass(frozen=True)
class OperatingPoint:
    """A screening rule: flag an image if its target's probability is at least a threshold.

    Attributes
    ----------
    target : what it looks for.
    wanted : sensitivity that was set, in (0, 1): what new lesions are flagged with on average.
    threshold : probability in [0, 1].
    sensitivity, specificity : of the rule on the calibration lesions, in [0, 1]; the second is nan
        where all of them have the target.
    sensitivity_interval, specificity_interval : their 95 % intervals.
    positives, negatives : numbers of calibration lesions with the target and without.
    group : the patients that it is for, whose calibration lesions these are; "" for all.
    """

    target: Target
    wanted: float
    threshold: float
    sensitivity: float
    sensitivity_interval: tuple[float, float]
    specificity: float
    specificity_interval: tuple[float, float]
    positives: int
    negatives: int
    group: str = ""


def times_base_rate(probabilities: Floats, base: Floats) -> Floats:
    """Return how many times its base rate each probability is, at least 0.

    Parameters
    ----------
    probabilities : (n, n_classes).
    base : (n_classes,) frequencies that the probabilities are for.

    Returns
    -------
    (n, n_classes); 0 for classes that have no base rate.
    """
    return np.divide(probabilities, base, out=np.zeros_like(probabilities), where=base > 0)


def balanced(probabilities: Floats, base: Floats) -> Ints:
    """Return the classes (n,) whose probability is largest beside its base rate.

    If the probabilities are right, no rule has a better expected balanced accuracy: Menon et al.,
    "Long-tail learning via logit adjustment", ICLR 2021, equation 3.

    Parameters
    ----------
    probabilities, base : (n, n_classes) and (n_classes,), as for `times_base_rate`.
    """
    return np.asarray(times_base_rate(probabilities, base).argmax(axis=1))


def targets_of(task: Task) -> tuple[Target, ...]:
    """Return what screening rules can look for: melanoma, and what is malignant if that is more.

    A task has fewer where it has no melanoma, or where nothing or everything is malignant.
    """
    targets: list[Target] = ["mel"] if _MELANOMA in task.codes else []
    if 0 < len(task.malignant) < task.n_classes and task.malignant != (_MELANOMA,):
        targets.append("malignant")
    return tuple(targets)


def target_probabilities(probabilities: Floats, task: Task) -> Floats:
    """Return the probability of each of a task's targets, in [0, 1], (n, targets).

    Parameters
    ----------
    probabilities : (n, n_classes) whose rows sum to 1.
    """
    return np.minimum(probabilities @ target_members(task), 1.0)


def target_members(task: Task) -> Bools:
    """Return which diagnosis is one of which target's, (n_classes, targets)."""
    members: dict[Target, tuple[str, ...]] = {"mel": (_MELANOMA,), "malignant": task.malignant}
    chosen = [members[target] for target in targets_of(task)]
    own = [[code in codes for codes in chosen] for code in task.codes]
    return np.array(own, dtype=np.bool_).reshape(task.n_classes, len(chosen))


def operating_point(
    target: Target, histograms: Ints, n_classes: int, sensitivity: float = SENSITIVITY
) -> OperatingPoint:
    """Choose the largest threshold that reaches a sensitivity.

    The threshold is chosen on the lesions that judge it. Therefore one new lesion is counted as
    missed: of n lesions with the target, (n + 1) times the sensitivity have to be flagged. Then a
    new lesion with the target is flagged with at least that probability, on average over
    calibrations, if it comes as they did.

    Parameters
    ----------
    target : what the rule looks for.
    histograms : (2, SCORE_BINS) calibration lesions without the target and with it, as of
        `AnswerCounts`.
    n_classes : number of classes, which the bins depend on.
    sensitivity : in (0, 1).

    Raises
    ------
    ConfigError
        If the sensitivity is not between 0 and 1, or there are too few lesions with the target.

    References
    ----------
    Vovk, "Conditional validity of inductive conformal predictors", ACML 2012: the threshold is
    label-conditional conformal prediction, for one label.
    """
    negatives, positives = (int(n) for n in histograms.sum(axis=1))
    _refuse_impossible(target, positives, sensitivity)
    threshold = float(
        strictest_threshold(histograms[1], sensitivity * (positives + 1), n_classes, "probability")
    )
    first = int(np.searchsorted(score_edges(n_classes), threshold, side="right"))
    below, flagged = int(histograms[0, :first].sum()), int(histograms[1, first:].sum())
    return OperatingPoint(
        target=target,
        wanted=sensitivity,
        threshold=threshold,
        sensitivity=flagged / positives,
        sensitivity_interval=wilson(flagged, positives),
        specificity=below / negatives if negatives else float("nan"),
        specificity_interval=wilson(below, negatives),
        positives=positives,
        negatives=negatives,
    )


def _refuse_impossible(target: Target, positives: int, sensitivity: float) -> None:
    if not 0 < sensitivity < 1:
        raise ConfigError(f"the sensitivity is {sensitivity:g}; choose one above 0 and below 1")
    if positives < (needed := lesions_needed(sensitivity)):
        raise ConfigError(
            f"screening for {TARGET_NAMES[target]} at a sensitivity of {100 * sensitivity:g} % "
            f"needs {needed} such calibration lesions and there are {positives}; "
            + ("set a smaller one" if positives else "add some")
        )
