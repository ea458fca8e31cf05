"""Groups of patients by one thing that is typed beside an image: sex, age or place."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from common.arrays import Ints
from common.data.counted_groups import CountedGroups
from common.data.dimensions import AGE, joined_decades, read_dimensions, refuse_within_decades
from common.data.groups import DECADES, MISSING, OTHER, SMALL, between, numbers
from common.data.metadata import Described
from common.errors import ConfigError
from common.task import HAM10000

COLUMNS = ("sex", AGE, "localization")
"""What may be typed beside an image."""

NO_GROUP = -1
"""Of a patient whose group is not known."""


@dataclass(frozen=True)
class PatientGroups:
    """The groups of one column.

    Attributes
    ----------
    column : one of `COLUMNS`.
    edges : ages in years at which a group begins, ascending, each the beginning of a decade.
    """

    column: str
    edges: tuple[float, ...] = DECADES

    @classmethod
    def read(cls, text: str) -> Self:
        """Read a column as ``sex``, ``localization``, ``age`` for decades, or ``age:40,60``.

        Raises
        ------
        ConfigError
            If it is none of these, or an age is not the beginning of a decade.
        """
        column, colon, _ = text.partition(":")
        column = column.strip()
        if column not in COLUMNS or (colon and column != AGE):
            raise ConfigError(
                f"no groups of patients by '{text}'; write one of {', '.join(COLUMNS)}, or "
                "age:40,60"
            )
        found = read_dimensions(text)
        if len(found) > 1:
            raise ConfigError(f"'{text}' names several columns; write one of them")
        refuse_within_decades(text, found[0])
        return cls(column, found[0].edges)

    @property
    def counted(self) -> CountedGroups:
        """The groups that hospitals count, of which these are made."""
        return CountedGroups.read(self.column)

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the groups, in order."""
        if self.column == AGE:
            return between(self.edges, 1)
        return tuple(name for name in self._counted_names if name not in (OTHER, MISSING, SMALL))

    @property
    def _counted_names(self) -> tuple[str, ...]:
        counted = self.counted
        return counted.names(counted.dimensions[0])

    def of(self, patients: Sequence[Described]) -> Ints:
        """Return the group (n,) of each of n patients; `NO_GROUP` where it is not known."""
        values = [getattr(patient, self.column) for patient in patients]
        # The numbers of these columns' groups depend on no task.
        return self._places[numbers(self.column, values, HAM10000)]

    def joined(self, counts: Ints) -> Ints:
        """Add up counts of hospitals' groups.

        Parameters
        ----------
        counts : (n_counted, ...) whole numbers, in the order of ``counted``.

        Returns
        -------
        (n_groups, ...) without what is in no group.
        """
        found = np.zeros((len(self.names), *counts.shape[1:]), dtype=counts.dtype)
        known = self._places != NO_GROUP
        np.add.at(found, self._places[known], counts[known])
        return found

    @property
    def _places(self) -> Ints:
        """The group of each of the hospitals' groups, (n_counted,)."""
        names = self._counted_names
        if self.column != AGE:
            own = self.names
            return np.array([own.index(n) if n in own else NO_GROUP for n in names])
        places = np.full(len(names), NO_GROUP, dtype=np.int64)
        decades = joined_decades(self.edges)
        places[: len(decades)] = decades
        return places
