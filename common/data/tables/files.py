"""Finds the file of an image by the name that a table has for it."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from common.data.image import Location
from common.data.pictures import ENDINGS
from common.data.tables.cells import without_ending
from common.data.tables.findings import FILE_TWICE, Findings
from common.data.tables.folder import is_zip

_REDUCED = "_downsampled"


class Match(NamedTuple):
    """A file's name without its ending, "" for none, and whether the table spells it so."""

    name: str
    exact: bool


class Files:
    """Images by their names without endings.

    Parameters
    ----------
    by_name : where they lie.
    """

    def __init__(self, by_name: Mapping[str, Location]) -> None:
        self.by_name = by_name
        self._folded: dict[str, list[str]] = {}
        for name in by_name:
            self._folded.setdefault(_folded(name), []).append(name)

    @classmethod
    def of(cls, locations: Iterable[Location], findings: Findings) -> "Files":
        """Name images by their files; of two with one name, the first of a format that is read."""
        by_name: dict[str, Location] = {}
        for location in sorted(locations, key=lambda each: not _is_read(each.member)):
            name = without_ending(location.member)
            first = by_name.setdefault(name, location)
            # A part may be both unpacked and zipped.
            alike = is_zip(first.container) == is_zip(location.container)
            if first is not location and alike and _is_read(location.member):
                paths = [str(each.container / each.member) for each in (first, location)]
                findings.add(FILE_TWICE, " and ".join(paths))
        return cls(by_name)

    def find(self, name: str) -> Match:
        """Find an image: by its name, else in another case or with or without `_downsampled`."""
        if name in self.by_name:
            return Match(name, True)
        alike = self._folded.get(_folded(name), [])
        return Match(alike[0] if len(alike) == 1 else "", False)


def _is_read(name: str) -> bool:
    return name.lower().endswith(ENDINGS)


def _folded(name: str) -> str:
    return name.lower().removesuffix(_REDUCED)
