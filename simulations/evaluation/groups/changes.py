"""What a second model changes for each group of lesions, and whether for all groups alike."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from common.arrays import Bools, Floats
from common.statistics.confusion import mean_defined
from common.statistics.metrics import CALIBRATION_BINS
from simulations.evaluation.groups.figures import LEAST, Grouping
from simulations.evaluation.groups.gaps import NO_GAP, Gap, Resampled, simultaneous
from simulations.evaluation.groups.measures import METRICS, SHARES, Records

CHANGED = (
    "balanced_accuracy",
    "malignant_sensitivity",
    "malignant_specificity",
    "auc",
    "calibration_error",
)
"""Those of the groups' metrics whose changes are judged, if no others are named."""

_NO_ERROR = 1e-12
"""Smallest standard error, so that a change of nothing can be divided by its own."""


@dataclass(frozen=True)
class GroupChange:
    """What a second model changes for one group.

    Attributes
    ----------
    dimension, group : by what lesions are grouped, and the group's name.
    lesions : how many; one with images in two groups counts a share in each.
    changes : of each metric that is judged, the second model minus the first.
    to_rest : these minus the changes for the lesions of the other groups; 0 if all gain alike.
    """

    dimension: str
    group: str
    lesions: float
    changes: Mapping[str, Gap]
    to_rest: Mapping[str, Gap]


@dataclass(frozen=True)
class Changes:
    """What a second model changes for each group.

    Attributes
    ----------
    groups : in the order of their dimensions.
    judged : number of changes whose intervals hold together.
    reach : half of such an interval, in standard errors.
    """

    groups: tuple[GroupChange, ...]
    judged: int
    reach: float


def changes_by_group(
    first: Records,
    second: Records,
    weights: Floats,
    groupings: Sequence[Grouping],
    metrics: Sequence[str] = CHANGED,
) -> Changes:
    """Compare two models on each group, paired over lesions.

    Parameters
    ----------
    first, second : what the models said of the same n images.
    weights : (1 + repeats, n) as of :func:`simulations.evaluation.groups.weights.lesion_weights`.
    groupings : the images' groups.
    metrics : those of :data:`simulations.evaluation.groups.measures.METRICS` whose changes are
        judged.
    """
    pair = _Pair(first, second, weights, metrics)
    found = [pair.measured(grouping, name) for grouping in groupings for name in grouping.names]
    family = [c for m in found for c in (*m.changes.values(), *m.to_rest.values())]
    judged, reach = simultaneous(family)
    intervals = iter(judged)
    return Changes(tuple(m.finished(intervals, metrics) for m in found), len(family), reach)


@dataclass(frozen=True)
class _Measured:
    """A group whose changes have no intervals yet; those that are not judged are missing."""

    dimension: str
    group: str
    lesions: float
    changes: Mapping[str, Resampled]
    to_rest: Mapping[str, Resampled]

    def finished(self, intervals: Iterator[Gap], metrics: Sequence[str]) -> GroupChange:
        """Take the next ``intervals``, in the order of the changes."""
        own, others = (
            {name: next(intervals) for name in judged} for judged in (self.changes, self.to_rest)
        )
        return GroupChange(
            self.dimension,
            self.group,
            self.lesions,
            {name: own.get(name, NO_GAP) for name in metrics},
            {name: others.get(name, NO_GAP) for name in metrics},
        )


@dataclass(frozen=True)
class _Pair:
    first: Records
    second: Records
    weights: Floats
    metrics: Sequence[str]

    def measured(self, grouping: Grouping, name: str) -> _Measured:
        """Return a group's changes, and how they differ from those of the rest."""
        group = grouping.group == name
        own, rest = self.changes(group), self.changes(~group & (grouping.group != ""))
        to_rest = {metric: _minus(own[metric], rest[metric]) for metric in own if metric in rest}
        lesions = float(self.weights[0, group].sum())
        return _Measured(grouping.dimension, name, lesions, own, to_rest)

    def changes(self, rows: Bools) -> dict[str, Resampled]:
        """Return the changes on the images of ``rows`` (n,) that rest on enough lesions."""
        if not rows.any():
            return {}
        lesions, weights = self.weights[0, rows], self.weights[:, rows]
        first, second = self.first.select(rows), self.second.select(rows)
        before, after = first.measure(weights), second.measure(weights)
        counts = first.counts(lesions)
        counts["calibration_error"] /= CALIBRATION_BINS
        errors = dict(_least_errors(first, second, lesions))
        return {
            name: Resampled(after[name] - before[name], errors.get(name, _NO_ERROR))
            for name in METRICS
            if name in self.metrics and counts[name] >= LEAST
        }


def _minus(change: Resampled, other: Resampled) -> Resampled:
    error = float(np.hypot(change.least_error, other.least_error))
    return Resampled(change.values - other.values, error)


def _least_errors(first: Records, second: Records, lesions: Floats) -> Iterator[tuple[str, float]]:
    """Yield the standard errors of changes of shares, as if one lesion more had changed.

    Where no lesion of a class changes, resampling sees no error at all.

    Parameters
    ----------
    lesions : (n,) share of an image in its lesion.
    """
    for name in SHARES:
        known = ~np.isnan(first.shares[name])
        moved = first.shares[name][known] != second.shares[name][known]
        yield name, float(_errors(lesions[known] @ moved, lesions[known].sum()))
    own = np.eye(first.task.n_classes)[first.labels]
    moved = (first.predicted == first.labels) != (second.predicted == second.labels)
    of_classes = _errors((lesions * moved) @ own, lesions @ own)
    known = ~np.isnan(of_classes)
    squares = mean_defined(of_classes[None] ** 2)[0]
    yield "balanced_accuracy", float(np.sqrt(squares / known.sum()))


def _errors(moved: Floats, n: Floats) -> Floats:
    """Return the standard errors of a change of which ``moved`` of ``n`` lesions are."""
    known = np.where(n > 0, n, np.nan)
    return np.asarray(np.sqrt(moved + 1) / known)
