"""A drawing of what a new model changes, on all lesions and in each group."""

import math

from common.answers.paired import FIGURES
from simulations.evaluation.replacement import Replacement
from simulations.study.report.charts.intervals import IntervalRow, interval_chart


def gate_chart(found: Replacement) -> bytes:
    """Return an SVG file with the changes of each figure, and lines at 0 and at the margin."""
    panels = {
        title: [
            IntervalRow(
                f"{row.group} ({row.lesions:.0f})",
                *(100 * end for end in (row.change.value, row.change.low, row.change.high)),
            )
            for row in found.rows
            if row.metric == metric and not math.isnan(row.change.value)
        ]
        for metric, title in FIGURES.items()
    }
    axis = "new minus old, points; the number of lesions in brackets"
    shown = {title: rows for title, rows in panels.items() if rows}
    return interval_chart(shown, axis, (0, -100 * found.margin), shared=False)
