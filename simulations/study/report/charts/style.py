"""How the series of a study look: colour by route, line and marker by how the data lie."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

from simulations.study.cells import Arm

LIGHT = ("#1a3fb0", "#dd5a12", "#2a8fbf", "#8c1862", "#33260f", "#857f62")
DARK = ("#5f7dff", "#ec6f1c", "#9fe8f2", "#b95aa8", "#f2f08a", "#948f78")
"""Colours of routes on white and on dark paper, apart for colour-blind readers too."""

MARKERS = "os^DvPXph*<>"

Dashes = tuple[int, tuple[float, ...]]

_LONG, _DOT, _GAP = 5.0, 1.2, 1.8


@dataclass(frozen=True)
class Style:
    """How a series is drawn.

    Attributes
    ----------
    colour : index into ``LIGHT`` and ``DARK``.
    line : dashes as matplotlib takes them; solid without any.
    marker : as matplotlib takes it.
    """

    colour: int
    line: Dashes
    marker: str


@dataclass(frozen=True)
class Styles:
    """The styles of a study, of which no two are the same.

    Attributes
    ----------
    routes, ways : numbers, those of sites alone after all others.
    """

    routes: Mapping[str, int]
    ways: Mapping[tuple[str, str], int]

    @classmethod
    def of(cls, arms: Iterable[Arm]) -> Self:
        """Give numbers to what the arms of a study use, in its order."""
        listed = list(arms)
        routes = dict.fromkeys(arm.route for arm in listed)
        ways = sorted(dict.fromkeys(arm[1:3] for arm in listed), key=lambda way: way[1] != "")
        return cls(
            {route: number for number, route in enumerate(routes)},
            {way: number for number, way in enumerate(ways)},
        )

    def __getitem__(self, arm: Arm) -> Style:
        """Return the style of an arm, the same at every scale."""
        again, colour = divmod(self.route(arm), len(LIGHT))
        # Colours used again meet other lines and markers.
        number = self.way(arm) + again * len(self.ways)
        return Style(colour, _dashes(number), MARKERS[number % len(MARKERS)])

    @property
    def repeated(self) -> bool:
        """Whether there are more routes than colours."""
        return len(self.routes) > len(LIGHT)

    def route(self, arm: Arm) -> int:
        """Return the number of an arm's route."""
        return self.routes[arm.route]

    def way(self, arm: Arm) -> int:
        """Return the number of how an arm's data lie."""
        return self.ways[arm.spread, arm.site]


def _dashes(number: int) -> Dashes:
    """Return the dashes of a line: solid, dashed, dotted, then dashes with ever more dots."""
    first: tuple[tuple[float, ...], ...] = ((), (_LONG, _GAP), (_DOT, _GAP))
    if number < len(first):
        return 0, first[number]
    return 0, (_LONG, _GAP) + (_DOT, _GAP) * (number - len(first) + 1)
