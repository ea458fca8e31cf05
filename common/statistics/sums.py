"""Values that add: the only kind of value that leaves a site."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import ClassVar, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from common.errors import ReplyError


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
        expected = self.to_record()
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
        return self._from_arrays(record)

    def extra_bits(self, name: str) -> int:
        """Return how many bits finer than others an array's steps are in a secure sum."""
        return 0

    @classmethod
    def _from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> Self:
        return cls(**arrays)


S = TypeVar("S", bound=Sums)


@dataclass(frozen=True)
class Nothing(Sums):
    """No arrays: an acknowledgement."""
