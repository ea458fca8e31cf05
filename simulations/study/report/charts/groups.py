"""The chart of the gaps between groups of lesions."""

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from simulations.evaluation.groups.figures import GroupFigures
from simulations.study.findings import Findings
from simulations.study.judging.groups_of_arm import DIMENSIONS
from simulations.study.names import sentence
from simulations.study.ranking import of_each_route
from simulations.study.report.charts.drawing import Look
from simulations.study.report.charts.svg import INK, Chart, as_chart, stacked
from simulations.study.report.tables.groups import gap_in_words, groups_by_dimension
from simulations.study.results import ArmResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DRAWN = "balanced_accuracy"
_ROW = 0.16
"""Inches that a group takes, and each arm in it."""


def groups_chart(findings: Findings, look: Look) -> Chart | None:
    """Draw the gap of each group to the rest in balanced accuracy, at one mix of diagnoses."""
    arms = [r for r in of_each_route(findings) if any(g for _, g in _drawn_of(r))]
    if not arms:
        return None
    names = {d: _names(arms, d) for d in DIMENSIONS}
    shown = [d for d in DIMENSIONS if names[d]]
    figure, panels = stacked([len(names[d]) for d in shown], _ROW * (1 + len(arms)))
    for panel, dimension in zip(panels, shown, strict=True):
        _panel(panel, arms, dimension, names[dimension], look)
    figure.supxlabel("balanced accuracy minus the rest, points")
    look.key(figure, arms, lines=False)
    note = (
        "Group and rest have one mix of the diagnoses that both have. Horizontal lines are 95 % "
        "intervals that hold for all gaps of an arm together; one that crosses 0 shows no gap, nor "
        "that there is none: the table says how small a gap would have been seen."
    )
    in_words = "; ".join(
        f"{findings.names.arm(r.arm)}, {d} {g.group}: {gap_in_words(g.standardised[_DRAWN])}"
        for r in arms
        for d, groups in _drawn_of(r)
        for g in groups
    )
    return as_chart("Gaps between groups", note, f"{in_words}.", figure)


def _panel(
    panel: "Axes", arms: Sequence[ArmResult], dimension: str, names: Sequence[str], look: Look
) -> None:
    step, upwards = 0.8 / len(arms), list(names)[::-1]
    for number, result in enumerate(arms):
        shift = ((len(arms) - 1) / 2 - number) * step
        for group in dict(_drawn_of(result))[dimension]:
            gap, y = group.standardised[_DRAWN], upwards.index(group.group) + shift
            panel.plot([100 * gap.low, 100 * gap.high], [y, y], color=look.colour(result), lw=1)
            panel.plot(100 * gap.value, y, **look.point(result))
    panel.set_yticks(range(len(upwards)), upwards)
    panel.set_ylim(-0.6, len(upwards) - 0.4)
    panel.axvline(0, color=INK, linestyle="--", linewidth=0.8)
    panel.grid(axis="x")
    panel.set_title(sentence(dimension), loc="left")


def _names(arms: Sequence[ArmResult], dimension: str) -> list[str]:
    drawn = (group.group for r in arms for group in dict(_drawn_of(r))[dimension])
    return list(dict.fromkeys(drawn))


def _drawn_of(result: ArmResult) -> Iterator[tuple[str, list[GroupFigures]]]:
    """Yield the groups of each dimension that have a gap to draw."""
    for dimension, groups in groups_by_dimension(result):
        yield dimension, [g for g in groups if not math.isnan(g.standardised[_DRAWN].value)]
