"""The plot of a report's first screen: each route by how its data lie, as rows with a dot."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from simulations.study.definition import POOLED
from simulations.study.findings import Findings, groups
from simulations.study.names import sentence
from simulations.study.points import in_points, span
from simulations.study.ranking import best, best_alone, federated
from simulations.study.report.charts.intervals import IntervalRow, interval_chart
from simulations.study.report.charts.style import Styles
from simulations.study.results import ArmResult, Estimate

_MOST_TICKS = 6


@dataclass(frozen=True)
class DotRow:
    """An arm, or arms that are identical.

    Attributes
    ----------
    value, interval, verdict : in words; the verdict is that against pooled data.
    low, mean, high : places on the axis, in percent of its length.
    """

    name: str
    value: str
    interval: str
    verdict: str
    low: float
    mean: float
    high: float


@dataclass(frozen=True)
class DotGroup:
    """The rows of a route, the best first.

    Attributes
    ----------
    colour : as of :class:`simulations.study.report.charts.style.Style`.
    reference : place of pooled data on the axis; None where the route has none.
    """

    route: str
    colour: int
    reference: float | None
    rows: Sequence[DotRow]


@dataclass(frozen=True)
class DotPlot:
    """Routes, the best first, and marks of the axis: place in percent, and what is there."""

    groups: Sequence[DotGroup]
    ticks: Sequence[tuple[float, int]]


@dataclass(frozen=True)
class _Axis:
    """An axis in points."""

    low: int
    high: int

    @classmethod
    def over(cls, values: Iterable[Estimate]) -> "_Axis":
        ends = [100 * end for v in values for end in (v.low, v.mean, v.high) if not math.isnan(end)]
        low, high = 10 * math.floor(min(ends) / 10), 10 * math.ceil(max(ends) / 10)
        return cls(low, max(high, low + 10))

    def place(self, value: float) -> float:
        return round(100 * (100 * value - self.low) / (self.high - self.low), 2)

    def ticks(self) -> list[tuple[float, int]]:
        step = 10 if (self.high - self.low) / 10 < _MOST_TICKS else 20
        marks = range(self.low, self.high + 1, step)
        return [(self.place(mark / 100), mark) for mark in marks]


def dot_plot(findings: Findings) -> DotPlot | None:
    """Return the plot of all arms with a model; of sites alone, of each route's best."""
    ranked = _ranked(findings)
    results = [r for rows in ranked for group in rows for r in group]
    if not results:
        return None
    axis = _Axis.over(r.balanced for r in results)
    styles = Styles.of(r.arm for r in findings.arms)
    return DotPlot([_group(findings, rows, axis, styles) for rows in ranked], axis.ticks())


def arms_chart(findings: Findings) -> bytes | None:
    """Return the same arms as an SVG file for documents; None where none has a model."""
    panels = {
        sentence(findings.names.routes[rows[0][0].arm.route]): [
            _interval_row(findings, alike) for alike in rows
        ]
        for rows in _ranked(findings)
    }
    return interval_chart(panels, "balanced accuracy, points") if panels else None


def _interval_row(findings: Findings, alike: Sequence[ArmResult]) -> IntervalRow:
    value = alike[0].balanced
    ends = (100 * each for each in (value.mean, value.low, value.high))
    return IntervalRow(_name(findings, alike), *ends)


def _ranked(findings: Findings) -> list[list[list[ArmResult]]]:
    """Return the rows of each route, the best route first."""
    return sorted(_by_route(findings), key=_best_of, reverse=True)


def _by_route(findings: Findings) -> Iterator[list[list[ArmResult]]]:
    """Yield the rows of each route, the best first: arms that are identical share one."""
    for route in findings.study.routes:
        whole = [r for r in findings.whole if r.arm.route == route]
        alone = best_alone(findings, route)
        shown = [*whole, *([] if alone is None else [alone])]
        rows = groups([r for r in shown if not math.isnan(r.balanced.mean)])
        if rows:
            yield sorted(rows, key=lambda group: group[0].balanced.mean, reverse=True)


def _best_of(rows: Sequence[Sequence[ArmResult]]) -> float:
    return rows[0][0].balanced.mean


def _group(
    findings: Findings, rows: Sequence[Sequence[ArmResult]], axis: _Axis, styles: Styles
) -> DotGroup:
    arm = rows[0][0].arm
    pooled = best(r for group in rows for r in group if findings.scheme(r) == POOLED)
    return DotGroup(
        sentence(findings.names.routes[arm.route]),
        styles[arm].colour,
        None if pooled is None else axis.place(pooled.balanced.mean),
        [_row(findings, group, axis) for group in rows],
    )


def _row(findings: Findings, alike: Sequence[ArmResult], axis: _Axis) -> DotRow:
    value = alike[0].balanced
    # A fold alone, or lesions alike, have no interval.
    low, high = (value.mean if math.isnan(end) else end for end in (value.low, value.high))
    places = (axis.place(place) for place in (low, value.mean, high))
    bounds = "" if math.isnan(value.low) else span((value.low, value.high))
    verdict = findings.standing(alike)
    return DotRow(_name(findings, alike), in_points(value.mean), bounds, verdict, *places)


def _name(findings: Findings, alike: Sequence[ArmResult]) -> str:
    first = alike[0]
    if first.arm.site:
        return f"best alone: {first.arm.site}"
    if findings.scheme(first) == POOLED or len(alike) > 1:
        others = federated(findings, first.arm.route)
        if len(others) > 1 and alike[1:] == others:
            return "pooled = all federated"
        return findings.names.ways(alike)
    return f"federated, {findings.names.way(first.arm)}"
