"""Sums as whole numbers in a ring of 64 bits, in which masks hide them and cancel.

A real number becomes the nearest multiple of a public step, 2^-36 unless its class says otherwise
(:meth:`common.statistics.sums.Sums.extra_bits`); a whole number stays what it is. With n sites each
may add at most ``(2^63 - 1) / n`` steps, so that no sum wraps. A larger value, or one that is no
number, is cut off there, and a last value of the vector counts the sites that cut off. A site does
not refuse, because a refusal would name it and depend on its records; a sum in which some site cut
off is an error. Every other sum of n sites is off by at most ``n / 2`` steps.

Two narrow numbers (:meth:`common.statistics.sums.Sums.narrow`) share a value: one is added to it,
one times 2^32. As long as no sum of either is above 2^31 steps, the sum of the values has both.
"""

import math
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from common.arrays import Ints
from common.errors import ReplyError
from common.statistics.sums import Narrow, S, Sums

Ring = NDArray[np.uint64]
Arrays = Mapping[str, NDArray[np.generic]]

FRACTION_BITS = 36
"""With ten sites, shares up to 1.3e7 fit; a sum is off by at most 7.3e-11."""

_LARGEST = 2**63 - 1
_LARGEST_NARROW = 2**31 - 1
_SHIFT = np.uint64(32)


def encode(sums: Sums, sites: int) -> Ring:
    """Return all arrays as one vector (length,): in the order of their names, narrow ones last.

    Its last value is 1 if some value was cut off, else 0.

    Parameters
    ----------
    sites : number of sites whose vectors are added.
    """
    arrays, narrow = sums.addends(), sums.narrow(sites)
    wide = [
        _steps(arrays[name], FRACTION_BITS + sums.extra_bits(name), _LARGEST // sites)
        for name in _wide(arrays, narrow)
    ]
    most = min(math.floor(narrow.largest * 2.0**narrow.bits), _LARGEST_NARROW) + 1
    parts = [_steps(arrays[name], narrow.bits, most) for name in sorted(narrow.names)]
    cut = any(was_cut for _, was_cut in (*wide, *parts))
    pairs = _paired([part for part, _ in parts])
    return np.concatenate([*(part for part, _ in wide), pairs, np.array([cut], np.uint64)])


def decode(total: Ring, zero: S, sites: int) -> S:
    """Return the sums that ``total`` (length,) holds, in the form of ``zero``.

    Parameters
    ----------
    sites : number of sites whose vectors were added.

    Raises
    ------
    ReplyError
        If they are none that records can give, or some site had more than it could add.
    """
    if len(total) != length(zero):
        raise ReplyError(f"the sum has {len(total)} values, expected {length(zero)}")
    if cut := int(total[-1]):
        raise ReplyError(
            f"{cut} sites have larger values than a secure sum over so many holds, or none that "
            "are numbers"
        )
    arrays, narrow = zero.addends(), zero.narrow(sites)
    names = _wide(arrays, narrow)
    wide = sum(arrays[name].size for name in names)
    steps = np.concatenate([total[:wide].view(np.int64), _unpaired(total[wide:-1])])
    found, begin = {}, 0
    for name in [*names, *sorted(narrow.names)]:
        like = arrays[name]
        part = steps[begin : begin + like.size]
        begin += like.size
        if not np.issubdtype(like.dtype, np.integer):
            own = FRACTION_BITS + zero.extra_bits(name)
            part = part * 2.0 ** -(narrow.bits if name in narrow.names else own)
        found[name] = part.astype(like.dtype).reshape(like.shape)
    return zero.from_addends(found)


def length(zero: Sums) -> int:
    """Return how many values the vector of such sums has."""
    return masked_length(masked_record(zero))


def masked_record(sums: Sums) -> dict[str, NDArray[np.generic]]:
    """Return what a vector holds by name, in its shapes: narrow arrays as in a record."""
    record, narrow = sums.to_record(), sums.narrow(1).names
    return {n: record[n] if n in narrow else a for n, a in sums.addends().items()}


def masked_length(record: Arrays) -> int:
    """Return the same for the ``record`` of sums, arrays of any shape by name."""
    narrow = sum(a.size for a in record.values() if a.dtype == np.float16)
    return sum(np.size(a) for a in record.values()) - narrow + math.ceil(narrow / 2) + 1


def schema(sums: Sums, sites: int) -> str:
    """Describe all that decides what a place in the vector of one of ``sites`` means."""
    narrow = sums.narrow(sites)
    arrays = sorted(sums.addends().items())
    return repr(
        [
            *((n, a.dtype.str, a.shape, n in narrow.names, sums.extra_bits(n)) for n, a in arrays),
            (FRACTION_BITS, narrow.bits),
        ]
    )


def _wide(arrays: Arrays, narrow: Narrow) -> list[str]:
    """Return the names of the arrays whose numbers have a value of their own, in order."""
    return [name for name in sorted(arrays) if name not in narrow.names]


def _paired(parts: Iterable[Ring]) -> Ring:
    """Put narrow steps together, two to a value."""
    steps = np.concatenate([np.zeros(0, np.uint64), *parts])
    pairs = np.append(steps, np.zeros(len(steps) % 2, np.uint64)).reshape(-1, 2)
    return np.asarray(pairs[:, 0] + (pairs[:, 1] << _SHIFT))


def _unpaired(values: Ring) -> Ints:
    """Return both sums of steps of each value; of an odd number of them, a zero is the last."""
    low = values.astype(np.uint32).view(np.int32).astype(np.int64)
    high = (values - low.view(np.uint64)) >> _SHIFT
    both = [low, high.astype(np.uint32).view(np.int32).astype(np.int64)]
    return np.stack(both, axis=1).ravel()


def _steps(array: NDArray[np.generic], bits: int, most: int) -> tuple[Ring, bool]:
    """Return an array in steps of 2^-bits, none larger than ``most``, and whether some were."""
    if np.issubdtype(array.dtype, np.integer):
        whole = np.asarray(array, np.int64).ravel()
        kept = np.clip(whole, -most, most)
        return kept.view(np.uint64), not np.array_equal(kept, whole)
    with np.errstate(over="ignore", invalid="ignore"):
        steps = np.multiply(array, 2.0**bits, dtype=np.float64).ravel()
    np.rint(steps, out=steps)
    # Doubles near 2^63 / n are multiples of up to 1,024: one below the bound is exact.
    inside = np.abs(steps) < most
    largest = np.nextafter(float(most), 0.0)
    kept = np.where(np.isnan(steps), 0.0, np.clip(steps, -largest, largest))
    return np.asarray(kept.astype(np.int64).view(np.uint64)), not inside.all()
