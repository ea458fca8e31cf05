"""Sums as whole numbers in a ring of 64 bits, in which masks hide them and cancel.

A real number becomes the nearest multiple of a public step, 2^-36 unless its class says otherwise
(:meth:`common.statistics.sums.Sums.extra_bits`); a whole number stays what it is. With n sites each
may add at most ``(2^63 - 1) / n`` steps, so that no sum wraps. A larger value, or one that is no
number, is cut off there, and a last value of the vector counts the sites that cut off. A site does
not refuse, because a refusal would name it and depend on its records; a sum in which some site cut
off is an error. Every other sum of n sites is off by at most ``n / 2`` steps.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from common.errors import ReplyError
from common.statistics.sums import S, Sums

Ring = NDArray[np.uint64]

FRACTION_BITS = 36
"""With ten sites, shares up to 1.3e7 fit; a sum is off by at most 7.3e-11."""

_LARGEST = 2**63 - 1


def encode(sums: Sums, sites: int) -> Ring:
    """Return all arrays as one vector (length,), in the order of their names.

    Its last value is 1 if some value was cut off, else 0.

    Parameters
    ----------
    sites : number of sites whose vectors are added.
    """
    most = _LARGEST // sites
    parts = [_steps(sums, name, a, most) for name, a in sorted(sums.to_record().items())]
    cut = any(was_cut for _, was_cut in parts)
    return np.concatenate([*(part for part, _ in parts), np.array([cut], np.uint64)])


def decode(total: Ring, zero: S) -> S:
    """Return the sums that ``total`` (length,) holds, in the form of ``zero``.

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
    record, begin = {}, 0
    for name, like in sorted(zero.to_record().items()):
        part = total[begin : begin + like.size].view(np.int64)
        begin += like.size
        if np.issubdtype(like.dtype, np.integer):
            record[name] = part.astype(like.dtype).reshape(like.shape)
        else:
            real = part * 2.0 ** -_bits(zero, name)
            record[name] = real.astype(like.dtype).reshape(like.shape)
    return zero.from_record(record)


def length(zero: Sums) -> int:
    """Return how many values the vector of such sums has."""
    return masked_length(zero.to_record())


def masked_length(record: Mapping[str, NDArray[np.generic]]) -> int:
    """Return the same for the ``record`` of sums, arrays of any shape by name."""
    return sum(np.size(array) for array in record.values()) + 1


def schema(sums: Sums) -> str:
    """Describe all that decides what a place in the vector means."""
    return repr(
        [
            (name, array.dtype.str, array.shape, _bits(sums, name))
            for name, array in sorted(sums.to_record().items())
        ]
    )


def _bits(sums: Sums, name: str) -> int:
    return FRACTION_BITS + sums.extra_bits(name)


def _steps(sums: Sums, name: str, array: NDArray[np.generic], most: int) -> tuple[Ring, bool]:
    """Return an array in steps, none larger than ``most``, and whether some were."""
    if np.issubdtype(array.dtype, np.integer):
        whole = np.asarray(array, np.int64).ravel()
        kept = np.clip(whole, -most, most)
        return kept.view(np.uint64), not np.array_equal(kept, whole)
    with np.errstate(over="ignore", invalid="ignore"):
        steps = np.multiply(array, 2.0 ** _bits(sums, name), dtype=np.float64).ravel()
    np.rint(steps, out=steps)
    # Doubles near 2^63 / n are multiples of up to 1,024: one below the bound is exact.
    inside = np.abs(steps) < most
    largest = np.nextafter(float(most), 0.0)
    kept = np.where(np.isnan(steps), 0.0, np.clip(steps, -largest, largest))
    return np.asarray(kept.astype(np.int64).view(np.uint64)), not inside.all()
