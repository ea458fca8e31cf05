"""What the charts of a study share: the look of its series, and a key to it."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from simulations.study.findings import Findings, groups
from simulations.study.report.style import Styles
from simulations.study.report.svg import INK, series_colour
from simulations.study.results import ArmResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_KEY_LETTERS = 42
"""That two columns of a key hold side by side."""


class Look:
    """How the series of a study are drawn; arms that are identical are drawn once.

    Parameters
    ----------
    findings : of the study.
    """

    def __init__(self, findings: Findings) -> None:
        self._names = findings.names
        self._styles = Styles.of(r.arm for r in findings.arms)

    def line(self, result: ArmResult) -> dict[str, Any]:
        """Return colour, line and marker of a series, as matplotlib takes them."""
        style = self._styles[result.arm]
        return {
            "color": series_colour(style.colour),
            "linestyle": style.line,
            "marker": style.marker,
        }

    def point(self, result: ArmResult) -> dict[str, Any]:
        """Return colour and marker of a series without a line."""
        return {**self.line(result), "linestyle": ""}

    def interval(self, result: ArmResult) -> dict[str, Any]:
        """Return how the interval of a point is drawn."""
        return {"color": self.line(result)["color"], "linewidth": 1.0}

    def key(self, figure: "Figure", results: Sequence[ArmResult], lines: bool = True) -> None:
        """Put above a figure which colour is which route, and which line which data."""
        from matplotlib.lines import Line2D

        styles, names = self._styles, self._names
        draw = self.line if lines else self.point
        routes = {r.arm.route: r for r in sorted(results, key=lambda r: styles.route(r.arm))}
        ways = {r.arm[1:3]: r for r in sorted(results, key=lambda r: styles.way(r.arm))}
        colours = [
            Line2D([], [], color=self.line(r)["color"], linewidth=5, label=names.routes[route])
            for route, r in routes.items()
        ]
        marks = [
            Line2D([], [], **{**draw(r), "color": INK}, label=names.way(r.arm))
            for r in ways.values()
        ]
        letters = sum(max(len(str(h.get_label())) for h in column) for column in (colours, marks))
        columns = 2 if letters <= _KEY_LETTERS else 1
        # Columns are filled one after the other.
        rows = max(len(colours), len(marks)) if columns == 2 else 0
        empty = [Line2D([], [], linestyle="", label=" ")] * rows
        both = [*(colours + empty)[: rows or None], *(marks + empty)[: rows or None]]
        figure.legend(handles=both, loc="outside upper left", ncols=columns)


def drawn(results: Iterable[ArmResult]) -> list[ArmResult]:
    """Return one arm of each group of identical ones."""
    return [group[0] for group in groups(list(results))]


def identities(findings: Findings, results: Sequence[ArmResult]) -> str:
    """Say which arms are identical, and so drawn once; "" where none are."""
    same = [findings.names.alike(group) for group in groups(results) if len(group) > 1]
    return f"Identical, and drawn once: {'; '.join(same)}." if same else ""
