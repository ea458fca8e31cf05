"""By what lesions are put into groups: a column of the table, ages between edges, or two of them.

A text such as ``sex,age:40,60,sex*age`` names dimensions, as people write them.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from common.arrays import Ints
from common.data.groups import DECADES, between
from common.data.image import Image
from common.errors import ConfigError

AGE, CROSS = "age", " * "

_TEXTS: Mapping[str, Callable[[Image], str]] = MappingProxyType(
    {
        "sex": lambda image: image.sex,
        "localization": lambda image: image.localization,
        "site": lambda image: image.source,
        "dx_type": lambda image: image.dx_type,
        "skin_tone": lambda image: image.skin_tone,
    }
)
KNOWN = (AGE, *_TEXTS)
"""What lesions can be put into groups by."""

_UNKNOWN = ("", "unknown")
_NUMBER = re.compile(r"[\d.]+")


@dataclass(frozen=True)
class Dimension:
    """By what lesions are put into groups.

    Attributes
    ----------
    columns : one or two of ``KNOWN``.
    edges : ages in years at which a group begins, ascending.
    """

    columns: tuple[str, ...]
    edges: tuple[float, ...] = DECADES

    @property
    def name(self) -> str:
        """What it is called."""
        return "*".join(self.columns)

    def groups_of(self, images: Sequence[Image]) -> NDArray[np.str_]:
        """Return the group of each image, "" where a column that it needs is empty, (n,)."""
        return np.array([self._group(image) for image in images], dtype=np.str_)

    def ordered(self, groups: Sequence[str]) -> list[str]:
        """Return names of groups, ages from young to old and texts by their letters."""
        return sorted(groups, key=self._place)

    def _group(self, image: Image) -> str:
        parts = [self._part(column, image) for column in self.columns]
        return CROSS.join(parts) if all(parts) else ""

    def _part(self, column: str, image: Image) -> str:
        if column != AGE:
            text = _TEXTS[column](image)
            return "" if text.lower() in _UNKNOWN else text
        if image.age is None:
            return ""
        return self._ages[int(np.searchsorted(self.edges, image.age, side="right"))]

    @property
    def _ages(self) -> tuple[str, ...]:
        """The names of the groups of ages."""
        return between(self.edges, 1)

    def _place(self, group: str) -> tuple[tuple[int, str], ...]:
        ages = self._ages
        parts = zip(self.columns, group.split(CROSS), strict=True)
        return tuple((ages.index(p) if c == AGE else 0, p) for c, p in parts)


def read_dimensions(text: str) -> tuple[Dimension, ...]:
    """Read dimensions as ``sex,age:40,60,site*age``; edges of ages hold for crossings, too.

    Raises
    ------
    ConfigError
        If the text names none, one that is not known, or edges that do not ascend.
    """
    words = [word.strip() for word in text.replace(":", ",:").split(",")]
    names = [w for w in words if w and not _NUMBER.fullmatch(w.removeprefix(":"))]
    numbers = [w.removeprefix(":") for w in words if _NUMBER.fullmatch(w.removeprefix(":"))]
    edges = _edges(text, numbers) if ":" in text else DECADES
    if not names or (numbers and ":" not in text):
        raise ConfigError(f"'{text}' names no groups; write --by like sex,age:40,60,sex*age")
    return tuple(dict.fromkeys(_dimension(name, edges) for name in names))


def refuse_within_decades(text: str, dimension: Dimension) -> None:
    """Refuse edges of ages that decades cannot be put together by.

    Hospitals count ages by decades, whatever the edges: two runs with other edges would tell those
    between.

    Parameters
    ----------
    text : what the dimension was read from.

    Raises
    ------
    ConfigError
        If an edge is not the beginning of a decade.
    """
    if within := [edge for edge in dimension.edges if edge not in DECADES]:
        raise ConfigError(
            f"'{text}' has an edge of ages at {within[0]:g}, but hospitals count ages by decades; "
            f"write tens from {DECADES[0]} to {DECADES[-1]}, as age:40,60"
        )


def joined_decades(edges: Sequence[float]) -> Ints:
    """Return the group between ``edges`` of each decade, from the first one's 0 on, (decades,)."""
    return np.searchsorted(edges, (0, *DECADES), side="right")


def _dimension(name: str, edges: tuple[float, ...]) -> Dimension:
    columns = tuple({"source": "site"}.get(part, part) for part in name.split("*"))
    if unknown := [column for column in columns if column not in KNOWN]:
        raise ConfigError(f"no groups by '{unknown[0]}'; known are {', '.join(KNOWN)}")
    if len(columns) > 2 or len(set(columns)) < len(columns):
        raise ConfigError(f"'{name}' is no crossing of two; write it like sex*age")
    return Dimension(columns, edges)


def _edges(text: str, numbers: Sequence[str]) -> tuple[float, ...]:
    try:
        edges = tuple(map(float, numbers))
    except ValueError as error:
        raise ConfigError(f"'{text}' has edges of ages that are no numbers") from error
    if not edges or any(low >= high for low, high in pairwise(edges)):
        raise ConfigError(f"'{text}' has edges of ages that do not ascend; write age:40,60")
    return edges
