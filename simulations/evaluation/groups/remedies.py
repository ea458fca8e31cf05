"""Models on groups of lesions at one sensitivity: what a remedy gives one group and costs others.

Each model's screening threshold is set so that as large a share of the malignant lesions is flagged
by each model. It is chosen on other lesions than it is judged on: whole lesions are put into folds,
and those of a fold are flagged by the threshold that the other folds' lesions give. A resample of
lesions chooses its thresholds anew, so that intervals hold their chance too.

Where a model has thresholds by group, what is compared with the one threshold is how far a lesion's
log-odds are above its own group's, which is of the model's calibration lesions.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from common.answers.answer import Target
from common.answers.answering import Answering, AnswerOptions
from common.answers.basis import AnswerBasis
from common.answers.operating import target_members, targets_of
from common.arrays import Bools, Floats, Ints
from common.data.metadata import Described
from common.statistics.confusion import ratio
from simulations.evaluation.groups.figures import LEAST, Grouping
from simulations.evaluation.groups.measures import Records

ALL = "all"
"""The name of all lesions together."""

FOLDS = 10

_ROUNDING = 1e-9
_LOWEST = 1e-300


@dataclass(frozen=True)
class Remedy:
    """A model with its thresholds, on n images.

    Attributes
    ----------
    name : what a reader calls it.
    scores : (n, targets) what is compared with a threshold, by the task's targets.
    records : its diagnoses of the same images.
    """

    name: str
    scores: Floats
    records: Records

    def same_diagnoses(self, other: "Remedy") -> bool:
        """Tell whether another remedy says the same of all images but for what it flags."""
        mine, theirs = self.records, other.records
        return np.array_equal(mine.predicted, theirs.predicted) and np.array_equal(
            mine.malignant, theirs.malignant
        )


@dataclass(frozen=True)
class Served:
    """A remedy on groups of lesions, as it is and under resamples, nan for too few lesions.

    Attributes
    ----------
    name : the remedy's.
    by_group : by group, `ALL` first, the metrics by name, (1 + repeats,) each.
    worst : by metric the group with the lowest; "" where fewer than two have it.
    lowest, gap : by metric the lowest of a group, and the highest minus the lowest, (1 + repeats,).
    """

    name: str
    by_group: Mapping[str, Mapping[str, Floats]]
    worst: Mapping[str, str]
    lowest: Mapping[str, Floats]
    gap: Mapping[str, Floats]


def largest_threshold(scores: Floats, having: Bools, weights: Floats, sensitivity: float) -> Floats:
    """Return the largest thresholds (repeats,) that reach a sensitivity, on n images.

    One lesion more is counted as missed, as by :func:`common.answers.operating.operating_point`.

    Parameters
    ----------
    scores, having : (n,) what is compared, and whether an image has the target.
    weights : (repeats, n) non-negative.
    sensitivity : in (0, 1).

    Returns
    -------
    (repeats,) ; minus infinity where too few lesions have the target.
    """
    ranked = np.flatnonzero(having)[np.argsort(-scores[having], kind="stable")]
    if not len(ranked):
        return np.full(len(weights), -np.inf)
    flagged = np.cumsum(weights[:, ranked], axis=1)
    enough = flagged >= sensitivity * (flagged[:, -1:] + 1) * (1 - _ROUNDING)
    reached = scores[ranked][enough.argmax(axis=1)]
    return np.where(enough.any(axis=1), reached, -np.inf)


def cross_fitted(
    scores: Floats, having: Bools, weights: Floats, folds: Ints, sensitivity: float
) -> Bools:
    """Return which of n images are flagged, by thresholds of other folds, (repeats, n).

    Parameters
    ----------
    scores, having : (n,) as of :func:`largest_threshold`.
    weights : (repeats, n) non-negative.
    folds : (n,) the fold of each image; those of a lesion are in one.
    sensitivity : in (0, 1).
    """
    flagged = np.zeros(weights.shape, dtype=np.bool_)
    for fold in np.unique(folds):
        own, others = folds == fold, folds != fold
        least = largest_threshold(scores[others], having[others], weights[:, others], sensitivity)
        flagged[:, own] = scores[own] >= least[:, None]
    return flagged


def above_own_threshold(
    basis: AnswerBasis, probabilities: Floats, patients: Sequence[Described], sensitivity: float
) -> Floats:
    """Return how far log-odds are above the threshold of each patient's group, (n, targets).

    Parameters
    ----------
    basis : of a model, with thresholds by group.
    probabilities : (n, targets) of the targets, in [0, 1].
    patients : n of them.
    sensitivity : of the thresholds, in (0, 1).
    """
    answering = Answering(basis, AnswerOptions(sensitivity=sensitivity))
    known = {point.target for point in answering.points}
    thresholds = np.full(probabilities.shape, np.nan)
    for row, points in enumerate(answering.points_for(patients)):
        for point in points:
            thresholds[row, targets_of(basis.task).index(point.target)] = point.threshold
    columns = [target in known for target in targets_of(basis.task)]
    thresholds[:, ~np.array(columns)] = 0.5
    return _log_odds(probabilities) - _log_odds(thresholds)


def _log_odds(p: Floats) -> Floats:
    inside = np.clip(p, _LOWEST, 1 - np.finfo(np.float64).eps)
    return np.asarray(np.log(inside) - np.log1p(-inside))


def diagnoses_served(remedy: Remedy, weights: Floats, grouping: Grouping) -> Served:
    """Judge the diagnoses of a remedy on groups, whatever its threshold.

    Parameters
    ----------
    weights : (1 + repeats, n) as of :func:`simulations.evaluation.groups.weights.lesion_weights`.
    grouping : the groups of the n images.
    """
    wanted = ("balanced_accuracy", "auc")

    def measured(rows: Bools) -> dict[str, Floats]:
        chosen, own = remedy.records.select(rows), weights[:, rows]
        found, counts = chosen.measure(own), chosen.counts(own[0])
        few = np.full(len(weights), np.nan)
        return {name: found[name] if counts[name] >= LEAST else few for name in wanted}

    return _served(remedy.name, measured, grouping)


def screening_served(
    remedy: Remedy,
    target: Target,
    weights: Floats,
    folds: Ints,
    grouping: Grouping,
    sensitivity: float,
) -> Served:
    """Judge a remedy's screening on groups at a sensitivity of all lesions together.

    Parameters
    ----------
    target : of the screening rule.
    weights : (1 + repeats, n) as of :func:`simulations.evaluation.groups.weights.lesion_weights`.
    folds : (n,) as of :func:`cross_fitted`.
    grouping : the groups of the n images.
    sensitivity : in (0, 1).
    """
    task = remedy.records.task
    column = targets_of(task).index(target)
    having = target_members(task)[remedy.records.labels, column]
    flagged = cross_fitted(remedy.scores[:, column], having, weights, folds, sensitivity)
    flagged_weights = weights * flagged

    def measured(rows: Bools) -> dict[str, Floats]:
        return {
            "sensitivity": _share(flagged_weights, weights, rows & having),
            "specificity": 1 - _share(flagged_weights, weights, rows & ~having),
            "referred": _share(flagged_weights, weights, rows),
        }

    return _served(remedy.name, measured, grouping)


def _share(some: Floats, weights: Floats, rows: Bools) -> Floats:
    """Return the share (repeats,) that some weights have of the rows; nan for too few lesions."""
    total = weights[:, rows].sum(axis=1)
    if not rows.any() or round(float(total[0]), 6) < LEAST:
        return np.full(len(weights), np.nan)
    return ratio(some[:, rows].sum(axis=1), total)


def _served(
    name: str, measured: Callable[[Bools], Mapping[str, Floats]], grouping: Grouping
) -> Served:
    by_group = {ALL: measured(np.ones(len(grouping.group), dtype=np.bool_))}
    by_group |= {each: measured(grouping.group == each) for each in grouping.names}
    worst: dict[str, str] = {}
    lowest: dict[str, Floats] = {}
    gap: dict[str, Floats] = {}
    for metric, of_all in by_group[ALL].items():
        known = {
            group: values[metric]
            for group, values in by_group.items()
            if group != ALL and not np.isnan(values[metric]).any()
        }
        worst[metric] = min(known, key=lambda g: float(known[g][0])) if len(known) > 1 else ""
        stacked = (
            np.stack([*known.values()]) if len(known) > 1 else np.full((1, len(of_all)), np.nan)
        )
        lowest[metric] = stacked.min(axis=0)
        gap[metric] = stacked.max(axis=0) - lowest[metric]
    return Served(name, by_group, worst, lowest, gap)
