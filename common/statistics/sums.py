"""Values that add: the only kind of value that leaves a site."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from typing import ClassVar, NamedTuple, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from common.errors import ReplyError


class Narrow(NamedTuple):
    """Arrays that go into a secure sum in 32 bits a number: those that a record has in 16.

    Attributes
    ----------
    names : of these arrays.
    bits : their numbers become multiples of two to the power of minus this.
    largest : largest number in those of one site.
    """

    names: Collection[str] = ()
    bits: int = 0
    largest: float = 0.0


@dataclass(frozen=True)
class Sums:
    """Arrays summed over records; adding two gives the sums over both sets of records.

    A subclass is a frozen dataclass whose fields are all NumPy arrays. Its neutral
    element (every array zero) also states the names, shapes and dtypes that a reply
    must have.

    Attributes
    ----------
    nonnegative : names of the arrays that no records can make negative.
    counted : name of the array, if any, to whose total each image adds at most 1.
    """

    nonnegative: ClassVar[tuple[str, ...]] = ()
    counted: ClassVar[str | None] = None

    def __add__(self, other: Self) -> Self:
        return type(self)(
            **{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)}
        )

    def to_record(self) -> dict[str, NDArray[np.generic]]:
        """Return the arrays by field name, each of the shape that the class documents."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def from_record(self, record: Mapping[str, NDArray[np.generic]]) -> Self:
        """Read a ``record`` that must have this one's names, shapes and types.

        Raises
        ------
        ReplyError
            If a name, shape or dtype differs from this object's, or a value is not finite
            or negative where none can be.
        """
        self.check(record, self.to_record())
        return self._from_arrays(record)

    def check(
        self,
        record: Mapping[str, NDArray[np.generic]],
        expected: Mapping[str, NDArray[np.generic]],
    ) -> None:
        """Refuse a ``record`` with other names, shapes or types than ``expected`` has.

        Raises
        ------
        ReplyError
            If it has, or a value is not finite or negative where none can be.
        """
        if record.keys() != expected.keys():
            raise ReplyError(f"arrays are {sorted(record)}, expected {sorted(expected)}")
        for name, want in expected.items():
            array = record[name]
            if array.shape != want.shape or array.dtype != want.dtype:
                raise ReplyError(
                    f"array '{name}' is {array.dtype}{list(array.shape)}, "
                    f"expected {want.dtype}{list(want.shape)}"
                )
            if not np.isfinite(array).all():
                raise ReplyError(f"array '{name}' holds NaN or infinite values")
            if name in self.nonnegative and (np.asarray(array) < 0).any():
                raise ReplyError(f"array '{name}' is negative, which no records can make it")

    def addends(self) -> dict[str, NDArray[np.generic]]:
        """Return the arrays that add up, in the shapes of a record's; a record's but for means."""
        return self.to_record()

    def from_addends(self, addends: Mapping[str, NDArray[np.generic]]) -> Self:
        """Read ``addends`` that must have the names, shapes and types of this one's.

        Raises
        ------
        ReplyError
            As in :meth:`from_record`.
        """
        return self.from_record(addends)

    def extra_bits(self, name: str) -> int:
        """Return how many bits finer than others a wide array's steps are in a secure sum."""
        return 0

    def narrow(self, sites: int) -> Narrow:
        """Say which arrays go into a secure sum over ``sites`` in half of the others' bits."""
        return Narrow()

    def _from_arrays(self, arrays: Mapping[str, NDArray[np.generic]]) -> Self:
        return type(self)(**arrays)


S = TypeVar("S", bound=Sums)


@dataclass(frozen=True)
class Nothing(Sums):
    """No arrays: an acknowledgement."""
