"""Answers of many sites, each kept until a result has been made of them."""

import zlib
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from common.statistics.sums import S

_FASTEST = 1


class _Packed(NamedTuple):
    """An array of counts, most of which are zero or small: a tenth of its bytes or less."""

    content: bytes
    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]


_Kept = Mapping[str, _Packed | NDArray[np.generic]]


class KeptAnswers(Mapping[str, S]):
    """Each site's answer by its name; counts in it are unpacked when it is asked for.

    Parameters
    ----------
    zero : the neutral element of the answers.
    """

    def __init__(self, zero: S) -> None:
        self._zero = zero
        self._each: dict[str, S | _Kept] = {}

    def keep(self, site: str, answer: S) -> None:
        """Keep a site's answer, in the order of the calls."""
        record = answer.to_record()
        # Of some a record holds less than they do: updates in half precision.
        whole = all(getattr(answer, name, None) is array for name, array in record.items())
        self._each[site] = {n: _packed(a) for n, a in record.items()} if whole else answer

    def __getitem__(self, site: str) -> S:
        """Return a site's answer."""
        kept = self._each[site]
        if not isinstance(kept, Mapping):
            return kept
        return self._zero.from_record({name: _unpacked(each) for name, each in kept.items()})

    def __iter__(self) -> Iterator[str]:
        """Yield the sites."""
        return iter(self._each)

    def __len__(self) -> int:
        """Return the number of sites."""
        return len(self._each)


def _packed(array: NDArray[np.generic]) -> _Packed | NDArray[np.generic]:
    if array.dtype.kind != "i":
        return array
    return _Packed(zlib.compress(array.tobytes(), _FASTEST), array.dtype, array.shape)


def _unpacked(kept: _Packed | NDArray[np.generic]) -> NDArray[np.generic]:
    if not isinstance(kept, _Packed):
        return kept
    return np.frombuffer(zlib.decompress(kept.content), kept.dtype).reshape(kept.shape)
