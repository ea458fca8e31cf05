"""Sums as whole numbers in a ring of 64 bits, in which masks hide them and cancel.

A real number becomes the nearest multiple of a public step, 2^-36 unless its class says
otherwise (:meth:`common.sums.Sums.extra_bits`); a whole number stays what it is. With n sites
each may add at most ``(2^63 - 1) / n`` steps, so that no sum wraps: a site that has more says
so, and nothing is clipped. The sum of n sites is off by at most ``n / 2`` steps.
"""

import math

import numpy as np
from numpy.typing import NDArray

from common.errors import RefusalError, ReplyError
from common.sums import S, Sums

Ring = NDArray[np.uint64]

FRACTION_BITS = 36
"""With ten sites, shares up to 1.3e7 fit; a sum is off by at most 7.3e-11."""

_LARGEST = 2**63 - 1


def encode(sums: Sums, sites: int) -> Ring:
    """Return all arrays as one vector, in the order of their names.

    Parameters
    ----------
    sites : number of sites whose vectors are added.

    Raises
    ------
    RefusalError
        If a value is not finite, or too large for the sum of so many; it names the array.
    """
    parts = [_steps(sums, name, a, sites) for name, a in sorted(sums.to_record().items())]
    return np.concatenate(parts) if parts else np.zeros(0, np.uint64)


def decode(total: Ring, zero: S) -> S:
    """Return the sums that an added vector holds, in the form of ``zero``.

    Raises
    ------
    ReplyError
        If they are none that records can give.
    """
    if len(total) != length(zero):
        raise ReplyError(f"the sum has {len(total)} values, expected {length(zero)}")
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
    return sum(array.size for array in zero.to_record().values())


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


def _steps(sums: Sums, name: str, array: NDArray[np.generic], sites: int) -> Ring:
    most = _LARGEST // sites
    if np.issubdtype(array.dtype, np.integer):
        whole = np.asarray(array, np.int64).ravel()
        # Not the absolute values: that of the smallest integer is negative.
        if whole.size and not (-most <= whole.min() and whole.max() <= most):
            raise RefusalError(_too_large(name, float(np.abs(whole.astype(float)).max()), most, 0))
        return whole.view(np.uint64)
    bits = _bits(sums, name)
    with np.errstate(over="ignore"):
        steps = np.multiply(array, 2.0**bits, dtype=np.float64).ravel()
    np.rint(steps, out=steps)
    largest = max(steps.max(), -steps.min()) if steps.size else 0.0
    if not math.isfinite(largest):
        raise RefusalError(f"array '{name}' holds NaN, infinite or far too large values")
    # Doubles near 2^63 / n are multiples of up to 1,024: one below the bound is exact.
    if largest >= most:
        raise RefusalError(_too_large(name, largest * 2.0**-bits, most, bits))
    return np.asarray(steps.astype(np.int64).view(np.uint64))


def _too_large(name: str, largest: float, most: int, bits: int) -> str:
    return (
        f"array '{name}' holds {largest:.3g}; in a secure sum over this many sites, with steps of "
        f"2^-{bits}, each may add at most {most * 2.0**-bits:.3g}"
    )
