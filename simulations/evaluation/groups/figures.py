"""How a model serves each group of lesions: figures, gaps to the rest, and their intervals."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from common.arrays import Bools, Floats
from common.data.dimensions import Dimension
from common.data.image import Image
from common.statistics.confusion import mean_defined
from common.statistics.metrics import CALIBRATION_BINS
from simulations.evaluation.bounded import Bounded
from simulations.evaluation.groups.gaps import NO_GAP, NORMAL, Gap, Resampled, simultaneous
from simulations.evaluation.groups.measures import METRICS, SHARES, Records
from simulations.evaluation.groups.weights import common_mix, standardised

LEAST = 10
"""Lesions that a metric must rest on, in a group and in the rest, before there is a gap.

Of a calibration error as many in each bin, on average.
"""

_OF_LESIONS = (*SHARES, "coverage", "referred")


@dataclass(frozen=True)
class GroupFigures:
    """A model on the lesions of one group.

    Attributes
    ----------
    dimension, group : by what lesions are grouped, and the group's name.
    lesions : how many; one with images in two groups counts a share in each.
    diagnoses : codes of those that the group has; balanced accuracy is the mean over them.
    metrics : each of :data:`simulations.evaluation.groups.measures.METRICS`, with its own 95 %
        interval.
    gaps : of each metric, to the rest: the lesions of the other groups.
    standardised : the same where group and rest have one mix of the diagnoses that both have.
    """

    dimension: str
    group: str
    lesions: float
    diagnoses: tuple[str, ...]
    metrics: Mapping[str, Bounded]
    gaps: Mapping[str, Gap]
    standardised: Mapping[str, Gap]


@dataclass(frozen=True)
class ByGroup:
    """A model on the lesions of each group.

    Attributes
    ----------
    groups : in the order of their dimensions.
    unknown : number of lesions in no group, by dimension: the table does not say.
    gaps : number of gaps whose intervals hold together.
    reach : half of such an interval, in standard errors.
    """

    groups: tuple[GroupFigures, ...]
    unknown: Mapping[str, float]
    gaps: int
    reach: float


@dataclass(frozen=True)
class Grouping:
    """The groups of n images in one dimension.

    Attributes
    ----------
    dimension : its name.
    names : of its groups, in order.
    group : (n,) of each image, "" where it is not known.
    """

    dimension: str
    names: Sequence[str]
    group: NDArray[np.str_]

    @classmethod
    def of(cls, dimension: Dimension, images: Sequence[Image]) -> Self:
        """Put images into the groups of a dimension that they have."""
        group = dimension.groups_of(images)
        names = dimension.ordered([str(name) for name in np.unique(group) if name])
        return cls(dimension.name, names, group)


@dataclass(frozen=True)
class _Measured:
    """A group whose gaps have no intervals yet; those that are not judged are missing."""

    figures: GroupFigures
    gaps: Mapping[str, Resampled]
    standardised: Mapping[str, Resampled]


def by_group(records: Records, weights: Floats, groupings: Sequence[Grouping]) -> ByGroup:
    """Judge a model on each group.

    Parameters
    ----------
    records : what the model said of n images.
    weights : (1 + repeats, n) as of :func:`simulations.evaluation.groups.weights.lesion_weights`.
    groupings : their groups.
    """
    found = [m for grouping in groupings for m in _measured(records, weights, grouping)]
    family = [gap for m in found for gap in (*m.gaps.values(), *m.standardised.values())]
    judged, reach = simultaneous(family)
    intervals = iter(judged)
    groups = tuple(_finished(m, intervals) for m in found)
    unknown = {g.dimension: float(weights[0, g.group == ""].sum()) for g in groupings}
    return ByGroup(groups, unknown, len(family), reach)


def _finished(measured: _Measured, intervals: Iterator[Gap]) -> GroupFigures:
    gaps = {name: next(intervals) for name in measured.gaps}
    alike = {name: next(intervals) for name in measured.standardised}
    return replace(
        measured.figures,
        gaps={name: gaps.get(name, NO_GAP) for name in METRICS},
        standardised={name: alike.get(name, NO_GAP) for name in METRICS},
    )


def _measured(records: Records, weights: Floats, grouping: Grouping) -> Iterator[_Measured]:
    for name in grouping.names:
        group = grouping.group == name
        rest = ~group & (grouping.group != "")
        present = np.unique(records.labels[group])
        own = _Part.of(records, weights, group, weights[:, group])
        lesions = round(float(weights[0, group].sum()), 6)
        diagnoses = tuple(records.task.codes[label] for label in present)
        yield _Measured(
            GroupFigures(grouping.dimension, name, lesions, diagnoses, own.bounded(), {}, {}),
            _gaps(own, _Part.of(records, weights, rest, weights[:, rest])),
            _standardised(records, weights, group, rest),
        )


def _standardised(
    records: Records, weights: Floats, group: Bools, rest: Bools
) -> dict[str, Resampled]:
    """Return the gaps under one mix of diagnoses."""
    n_classes = records.task.n_classes
    mix = common_mix(records.labels, weights[0], group, rest, n_classes)
    common = mix[records.labels] > 0
    parts = [
        _Part.of(
            records,
            weights,
            rows,
            standardised(records.labels[rows], weights[:, rows], mix),
        )
        for rows in (group & common, rest & common)
    ]
    return _gaps(*parts)


@dataclass(frozen=True)
class _Part:
    """The metrics (1 + repeats,) of some images, and what they rest on.

    Attributes
    ----------
    counts : number of lesions behind each metric.
    errors : smallest standard error of each metric that is believed.
    """

    values: Mapping[str, Floats]
    counts: Mapping[str, float]
    errors: Mapping[str, float]

    @classmethod
    def of(cls, records: Records, all_weights: Floats, rows: Bools, weights: Floats) -> "_Part":
        """Measure the images that ``rows`` (n,) chooses, under ``weights`` (1 + repeats, rows)."""
        if not rows.any():
            return cls({}, dict.fromkeys(METRICS, 0.0), {})
        chosen, lesions = records.select(rows), all_weights[0, rows]
        values, counts = chosen.measure(weights), chosen.counts(lesions)
        # With fewer in a bin, resamples cannot turn the sign of its error, which then looks sure.
        counts["calibration_error"] = _worth(weights[0], lesions) / CALIBRATION_BINS
        errors = {name: _least_error(chosen, lesions, weights[0], name) for name in METRICS}
        return cls(values, counts, errors)

    def bounded(self) -> dict[str, Bounded]:
        """Return each metric with its own 95 % interval."""
        return {name: self._bounded(name) for name in METRICS}

    def _bounded(self, name: str) -> Bounded:
        values = self.values.get(name, np.full(2, np.nan))
        value = float(values[0])
        if np.isnan(values[1:]).any() or self.counts[name] < LEAST:
            return Bounded(value, float("nan"), float("nan"))
        half = NORMAL * max(float(np.std(values[1:], ddof=1)), self.errors[name])
        return Bounded(value, max(value - half, 0.0), min(value + half, 1.0))


def _gaps(group: _Part, rest: _Part) -> dict[str, Resampled]:
    """Return the gaps that rest on enough lesions on both sides."""
    return {
        name: _gap(group, rest, name)
        for name in METRICS
        if min(group.counts[name], rest.counts[name]) >= LEAST
    }


def _gap(group: _Part, rest: _Part, name: str) -> Resampled:
    own, other = (_unbiased(name, part.values[name]) for part in (group, rest))
    return Resampled(own - other, float(np.hypot(group.errors[name], rest.errors[name])))


def _unbiased(name: str, values: Floats) -> Floats:
    """Return a metric less its bias: calibration errors add up distances, few lesions make larger.

    The bootstrap's estimate of the bias is how much larger resamples are than the data: Efron and
    Tibshirani (1993), chapter 10.
    """
    corrected = values.copy()
    if name == "calibration_error":
        corrected[0] -= values[1:].mean() - values[0]
    return corrected


def _least_error(records: Records, lesions: Floats, weights: Floats, name: str) -> float:
    """Return the standard error of a share, as if half a lesion more of each kind had been seen.

    Where all lesions of a class are right, resampling them sees no error at all. Lesions whose
    weights differ are worth fewer: Kish (1965), "Survey sampling", section 11.7.
    """
    if name == "balanced_accuracy":
        own = np.eye(records.task.n_classes)[records.labels]
        squares = _share_error(records.sensitivities(lesions[None])[0], lesions @ own) ** 2
        return float(np.sqrt(mean_defined(squares) / np.sum(~np.isnan(squares))))
    if name not in _OF_LESIONS:
        return 0.0
    values = records.shares[name]
    known = ~np.isnan(values)
    if not known.any():
        return 0.0
    share = np.average(values[known], weights=weights[known])
    worth = _worth(weights[known], lesions[known])
    return float(_share_error(np.array([share]), np.array([worth]))[0])


def _worth(weights: Floats, lesions: Floats) -> float:
    """Return how many equal lesions weights (n,) are worth; ``lesions`` (n,) are shares."""
    return float(weights.sum() ** 2 / (weights**2 / lesions).sum())


def _share_error(shares: Floats, n: Floats) -> Floats:
    """Return the standard errors of shares (k,) of ``n`` (k,) lesions; nan for none."""
    known = np.where(n > 0, n, np.nan)
    likely = (shares * known + 0.5) / (known + 1)
    return np.asarray(np.sqrt(likely * (1 - likely) / known))
