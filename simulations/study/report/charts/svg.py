"""Drawings with matplotlib as SVG: in a page, whose colours they take, or as files."""

import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from simulations.study.report.charts.style import LIGHT

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_NOTHING_OF_TODAY = {"Date": None, "Creator": None}

INK, GRID = "#00000a", "#00000b"


def series_colour(number: int) -> str:
    """Return what to draw a route with; the page has its own colour in its place."""
    return f"#0000{number + 16:02x}"


_COLOURS = {
    INK: "currentColor",
    GRID: "var(--grid)",
    **{series_colour(n): f"var(--series-{n})" for n in range(len(LIGHT))},
}
"""What matplotlib draws with, and what stands in the page instead."""

_WIDTH, _TEXT = 4.5, 11.5
"""In inches and points: as wide as the column of a telephone, where a point is a pixel."""


@dataclass(frozen=True)
class Chart:
    """A drawing and what it shows, for who cannot see it; its numbers are in the tables.

    Attributes
    ----------
    note : how to read it.
    alternative : what it shows, in words.
    """

    title: str
    note: str
    alternative: str
    svg: str


def new_figure(height: float) -> tuple["Figure", "Axes"]:
    """Return a figure as wide as a page's column, and its axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    return figure, figure.subplots()


def panel_grid(number: int, height: float) -> tuple["Figure", list["Axes"]]:
    """Return that many panels, two a row, of this height in inches."""
    from matplotlib.figure import Figure

    rows = (number + 1) // 2
    figure = Figure(figsize=(_WIDTH, height * rows + 0.3), layout="constrained")
    panels = list(figure.subplots(rows, 2, sharex=True, sharey=True, squeeze=False).ravel())
    for free in panels[number:]:
        free.axis("off")
        panels[number - 2].tick_params(labelbottom=True)
    return figure, panels[:number]


def stacked(rows: Sequence[int], height: float) -> tuple["Figure", list["Axes"]]:
    """Return panels one below the other, with so many rows each, of this height in inches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, height * sum(rows) + 0.5 * len(rows)), layout="constrained")
    panels = figure.subplots(len(rows), 1, sharex=True, squeeze=False, height_ratios=rows)
    return figure, list(panels.ravel())


@contextmanager
def page_style() -> Iterator[None]:
    """Draw in colours and sizes that :func:`as_chart` can turn into the page's."""
    import matplotlib

    with matplotlib.rc_context(
        {
            "text.color": INK,
            "axes.edgecolor": INK,
            "axes.labelcolor": INK,
            "xtick.color": INK,
            "ytick.color": INK,
            "grid.color": GRID,
            "grid.linewidth": 0.6,
            "figure.facecolor": "none",
            "axes.facecolor": "none",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "font.size": _TEXT,
            "axes.titlesize": _TEXT,
            "figure.labelsize": _TEXT,
            "legend.frameon": False,
            "legend.borderpad": 0.0,
            "legend.columnspacing": 1.0,
            "legend.handlelength": 2.2,
            "legend.handletextpad": 0.5,
            "legend.labelspacing": 0.3,
            "lines.markersize": 5,
            "svg.fonttype": "none",
            "svg.hashsalt": "fedderm",
        }
    ):
        yield


def as_file(draw: Callable[[], "Figure"]) -> bytes:
    """Return a drawing as an SVG file that stands alone, the same bytes for the same drawing."""
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": "fedderm", "font.size": 10}):
        out = io.BytesIO()
        draw().savefig(out, format="svg", metadata=_NOTHING_OF_TODAY)
    return out.getvalue()


def as_chart(title: str, note: str, alternative: str, figure: "Figure") -> Chart:
    """Return a drawing as SVG that can stand in a page with others."""
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata=_NOTHING_OF_TODAY)
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :]
    for drawn, shown in _COLOURS.items():
        svg = svg.replace(drawn, shown)
    name = re.sub(r"\W+", "-", title.lower())
    svg = _prefixed(svg, name)
    # Its size is the page's.
    svg = re.sub(r'width="[\d.]+pt" height="[\d.]+pt" ', "", svg, count=1)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    return Chart(title, note, alternative, _described(svg, name, title, alternative))


def _described(svg: str, name: str, title: str, alternative: str) -> str:
    """Put into a drawing what it is and what it shows."""
    tag, rest = svg.split(">", 1)
    return (
        f'{tag} role="img" aria-labelledby="{name}-title" aria-describedby="{name}-desc">'
        f'<title id="{name}-title">{escape(title)}</title>'
        f'<desc id="{name}-desc">{escape(alternative)}</desc>{rest}'
    )


def _prefixed(svg: str, prefix: str) -> str:
    """Make ids unique in a page with several drawings, and drop those that nobody uses."""
    used = set(re.findall(r'(?:url\(#|href="#)([\w-]+)', svg))

    def rename(match: re.Match[str]) -> str:
        name = match[1]
        return f' id="{prefix}-{name}"' if name in used else ""

    svg = re.sub(r' id="([^"]+)"', rename, svg)
    return re.sub(r'(url\(#|href="#)', rf"\g<1>{prefix}-", svg)
