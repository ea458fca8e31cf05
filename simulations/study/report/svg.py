"""Drawings with matplotlib as SVG that takes its colours from the page around it."""

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_INK, GRID = "#00000a", "#00000b"
SERIES = 6
"""Colours that a page has for routes."""


def series_colour(number: int) -> str:
    """Return what to draw a route with; the page has its own colour in its place."""
    return f"#0000{number % SERIES + 16:02x}"


_COLOURS = {
    _INK: "currentColor",
    GRID: "var(--grid)",
    **{series_colour(n): f"var(--series-{n})" for n in range(SERIES)},
}
"""What matplotlib draws with, and what stands in the page instead."""

_WIDTH = 4.6


@dataclass(frozen=True)
class Chart:
    """A drawing and what it shows, for who cannot see it; its numbers are in the tables."""

    title: str
    alternative: str
    svg: str


def new_figure(height: float) -> tuple["Figure", "Axes"]:
    """Return a figure as wide as a page's column, and its axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    return figure, figure.subplots()


def panel_grid(number: int, height: float) -> tuple["Figure", list["Axes"]]:
    """Return panels, two a row, at least as many as asked for."""
    from matplotlib.figure import Figure

    rows = (number + 1) // 2
    figure = Figure(figsize=(_WIDTH, height * rows + 0.3), layout="constrained")
    grid = figure.subplots(rows, 2, sharex=True, sharey=True, squeeze=False)
    return figure, list(grid.ravel())


def legend_in_free_panel(figure: "Figure", panels: Sequence["Axes"], used: int) -> None:
    """Put the legend into the first panel that is free, else below."""
    handles, labels = panels[0].get_legend_handles_labels()
    for panel in panels[used:]:
        panel.axis("off")
    if used < len(panels):
        panels[used].legend(handles, labels, loc="center")
    else:
        figure.legend(handles, labels, loc="outside lower center")


@contextmanager
def page_style() -> Iterator[None]:
    """Draw in colours and sizes that :func:`as_chart` can turn into the page's."""
    import matplotlib

    with matplotlib.rc_context(
        {
            "text.color": _INK,
            "axes.edgecolor": _INK,
            "axes.labelcolor": _INK,
            "xtick.color": _INK,
            "ytick.color": _INK,
            "grid.color": GRID,
            "grid.linewidth": 0.6,
            "figure.facecolor": "none",
            "axes.facecolor": "none",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlesize": 9,
            "axes.labelsize": 9,
            "figure.labelsize": 9,
            "font.size": 9,
            "legend.frameon": False,
            "legend.fontsize": 8,
            "svg.fonttype": "none",
            "svg.hashsalt": "fedderm",
        }
    ):
        yield


def as_chart(title: str, alternative: str, figure: "Figure") -> Chart:
    """Return a drawing as SVG that can stand in a page with others."""
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :]
    for drawn, shown in _COLOURS.items():
        svg = svg.replace(drawn, shown)
    svg = _prefixed(svg, re.sub(r"\W+", "-", title.lower()))
    # Its size is the page's; what it shows is said by the figure around it.
    svg = re.sub(r'width="[\d.]+pt" height="[\d.]+pt" ', "", svg, count=1)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    return Chart(title, alternative, svg)


def _prefixed(svg: str, prefix: str) -> str:
    """Make ids unique in a page with several drawings, and drop those that nobody uses."""
    used = set(re.findall(r'(?:url\(#|href="#)([\w-]+)', svg))

    def rename(match: re.Match[str]) -> str:
        name = match[1]
        return f' id="{prefix}-{name}"' if name in used else ""

    svg = re.sub(r' id="([^"]+)"', rename, svg)
    return re.sub(r'(url\(#|href="#)', rf"\g<1>{prefix}-", svg)
