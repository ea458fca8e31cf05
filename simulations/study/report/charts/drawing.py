"""What the charts of a study share: the look of its series, and a key to it."""

import textwrap
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, TypedDict

from simulations.study.findings import Findings, groups
from simulations.study.report.charts.style import Dashes, Styles
from simulations.study.report.charts.svg import INK, series_colour
from simulations.study.results import ArmResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

_KEY_LETTERS, _KEY_ROW = 42, 0.22
"""Letters that a row of a key holds, and inches that it takes."""


class Series(TypedDict):
    """How a series is drawn, as matplotlib takes it."""

    color: str
    linestyle: Dashes | str
    marker: str


Draw = Callable[[ArmResult], Series]


class Look:
    """How the series of a study are drawn; arms that are identical are drawn once.

    Parameters
    ----------
    findings : of the study.
    """

    def __init__(self, findings: Findings) -> None:
        self._names = findings.names
        self._styles = Styles.of(r.arm for r in findings.arms)

    def colour(self, result: ArmResult) -> str:
        """Return the colour of a route."""
        return series_colour(self._styles[result.arm].colour)

    def line(self, result: ArmResult) -> Series:
        """Return colour, line and marker of a series."""
        style = self._styles[result.arm]
        return {
            "color": self.colour(result),
            "linestyle": style.line,
            "marker": style.marker,
        }

    def point(self, result: ArmResult) -> Series:
        """Return colour and marker of a series without a line."""
        return {**self.line(result), "linestyle": ""}

    def key(self, figure: "Figure", results: Sequence[ArmResult], lines: bool = True) -> None:
        """Put above a figure which colour is which route, and which line which data.

        Where routes share a colour it lists each series.
        """
        draw = self.line if lines else self.point
        if self._styles.repeated:
            columns = [[_sample(self._names.arm(r.arm), **draw(r)) for r in results]]
        else:
            columns = [self._colours(results), self._marks(results, draw)]
        if sum(max(len(str(h.get_label())) for h in column) for column in columns) > _KEY_LETTERS:
            columns = [[handle for column in columns for handle in column]]
        rows = max(map(len, columns))
        # Columns are filled one after the other.
        filled = [(column + [_sample("", linestyle="")] * rows)[:rows] for column in columns]
        figure.set_figheight(figure.get_figheight() + _KEY_ROW * rows)
        handles = list(chain.from_iterable(filled))
        figure.legend(handles=handles, loc="outside upper left", ncols=len(columns))

    def _colours(self, results: Sequence[ArmResult]) -> list["Line2D"]:
        ordered = sorted(results, key=lambda r: self._styles.route(r.arm))
        routes = {r.arm.route: self.colour(r) for r in ordered}
        return [
            _sample(self._names.routes[route], color=colour, linewidth=5)
            for route, colour in routes.items()
        ]

    def _marks(self, results: Sequence[ArmResult], draw: Draw) -> list["Line2D"]:
        ordered = sorted(results, key=lambda r: self._styles.way(r.arm))
        ways = {self._names.way(r.arm): {**draw(r), "color": INK} for r in ordered}
        return [_sample(way, **look) for way, look in ways.items()]


def _sample(label: str, **look: Any) -> "Line2D":
    from matplotlib.lines import Line2D

    return Line2D([], [], label=textwrap.fill(label, _KEY_LETTERS), **look)


def drawn(results: Iterable[ArmResult]) -> list[ArmResult]:
    """Return one arm of each group of identical ones."""
    return [group[0] for group in groups(list(results))]


def identities(findings: Findings, results: Sequence[ArmResult]) -> str:
    """Say which arms are identical, and so drawn once; "" where none are."""
    same = [findings.names.alike(group) for group in groups(results) if len(group) > 1]
    return f"Identical, and drawn once: {'; '.join(same)}." if same else ""
