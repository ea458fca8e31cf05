"""Answers of many sites, each kept until a result has been made of them."""

import zlib
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from common.statistics.sums import S

_FASTEST = 1


class _Packed(NamedTuple):
    """An array of counts, most of which are zero or small: a hundredth of its bytes or less."""

    packed: bytes
    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]


class KeptAnswers(Mapping[str, S]):
    """Each site's answer by its name; those that are counts are unpacked when they are asked for.

    Parameters
    ----------
    zero : the neutral element of the answers.
    """

    def __init__(self, zero: S) -> None:
        self._zero = zero
        self._each: dict[str, S | dict[str, _Packed]] = {}

    def keep(self, site: str, answer: S) -> None:
        """Keep a site's answer, in the order of the calls."""
        record = answer.to_record()
        counts = all(array.dtype.kind == "i" for array in record.values())
        self._each[site] = _packed(record) if counts else answer

    def __getitem__(self, site: str) -> S:
        """Return a site's answer."""
        kept = self._each[site]
        return self._zero.from_record(_unpacked(kept)) if isinstance(kept, dict) else kept

    def __iter__(self) -> Iterator[str]:
        """Yield the sites."""
        return iter(self._each)

    def __len__(self) -> int:
        """Return the number of sites."""
        return len(self._each)


def _packed(record: Mapping[str, NDArray[np.generic]]) -> dict[str, _Packed]:
    return {
        name: _Packed(zlib.compress(array.tobytes(), _FASTEST), array.dtype, array.shape)
        for name, array in record.items()
    }


def _unpacked(record: Mapping[str, _Packed]) -> dict[str, NDArray[np.generic]]:
    return {
        name: np.frombuffer(zlib.decompress(each.packed), each.dtype).reshape(each.shape)
        for name, each in record.items()
    }
