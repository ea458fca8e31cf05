"""Values with their intervals as one drawing that stands alone, for documents."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from simulations.study.report.charts.svg import as_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WIDTH, _ROW, _PANEL = 7.0, 0.27, 0.6
"""Inches of the drawing, of a row, and of a panel's title and scale."""


class IntervalRow(NamedTuple):
    """A value with its 95 % interval, in points; nan where there is none."""

    name: str
    value: float
    low: float
    high: float


def interval_chart(
    panels: Mapping[str, Sequence[IntervalRow]],
    axis: str,
    marks: Sequence[float] = (),
    *,
    shared: bool = True,
) -> bytes:
    """Draw panels of rows below each other, as an SVG file.

    Parameters
    ----------
    panels : rows by title, the uppermost first.
    axis : what the values are.
    marks : values at which a line is drawn through all panels.
    shared : whether all panels have one scale.
    """
    return as_file(lambda: _drawn(panels, axis, marks, shared))


def _drawn(
    panels: Mapping[str, Sequence[IntervalRow]],
    axis: str,
    marks: Sequence[float],
    shared: bool,
) -> "Figure":
    from matplotlib.figure import Figure

    sizes = [len(rows) for rows in panels.values()]
    height = _ROW * sum(sizes) + _PANEL * (len(sizes) + 1)
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    axes = figure.subplots(len(sizes), 1, sharex=shared, squeeze=False, height_ratios=sizes)
    for panel, (title, rows) in zip(axes.ravel(), panels.items(), strict=True):
        for y, row in enumerate(reversed(rows)):
            if not math.isnan(row.low):
                panel.plot([row.low, row.high], [y, y], color="C0")
            panel.plot(row.value, y, "oC0")
        for mark in marks:
            panel.axvline(mark, color="0.4", linestyle="--", linewidth=0.8)
        panel.set_yticks(range(len(rows)), [row.name for row in reversed(rows)])
        panel.set_ylim(-0.6, len(rows) - 0.4)
        panel.grid(axis="x", linewidth=0.4)
        panel.set_title(title, loc="left")
    figure.supxlabel(axis)
    return figure
