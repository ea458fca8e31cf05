"""Noise that is released: drawn in the ring of integers, from the operating system's randomness.

A noisy sum is made of whole numbers, multiples of a public step. So nothing of a record shows in
the last digits of a floating-point number (Mironov, "On significance of the least significant
bits for differential privacy", CCS 2012), and a secure sum can add it.
"""

import os
from collections.abc import Callable

import numpy as np

from common.arrays import Floats, Ints
from common.errors import ConfigError

STEP = 2.0**-24
"""A step of the ring in real numbers: with 64 bits, sums up to 5e11 do not wrap."""

ROUNDING = 1e-3
"""How far a unit may move the others' contributions, of the largest norm of its own.

In floating point a sum over records, and a gradient of a batch, round otherwise with one record
more. It is counted, at many times what the tests see in single precision.
"""

_LARGEST_SCALE = 1e12

Randomness = Callable[[int], bytes]
"""Returns so many random bytes."""


def noisy(values: Floats, sensitivity: float, noise: float, randomness: Randomness) -> Ints:
    """Round values to the ring and add discrete Gaussian noise; the shape stays.

    Parameters
    ----------
    values : any shape, sums over records.
    sensitivity : largest Euclidean norm of what one unit adds to ``values``.
    noise : standard deviation of the noise over the sensitivity; 0 for none.

    References
    ----------
    Canonne, Kamath and Steinke, "The discrete Gaussian for differential privacy", NeurIPS 2020,
    theorem 4 and, for vectors, corollary 5.
    """
    rounded = np.rint(values / STEP).astype(np.int64)
    if not noise:
        return rounded
    scale = _scale(sensitivity, noise, values.size)
    return rounded + discrete_gaussian(scale, values.size, randomness).reshape(values.shape)


def check_noise(sensitivity: float, noise: float, size: int) -> None:
    """Check, before it is paid for, that :func:`noisy` can make such noise for ``size`` values.

    Raises
    ------
    ConfigError
        If it cannot.
    """
    if (scale := _scale(sensitivity, noise, size)) > _LARGEST_SCALE:
        raise ConfigError(
            f"noise of {scale * STEP:.3g} for a norm of {sensitivity:g} is more than sums hold, "
            f"{_LARGEST_SCALE * STEP:.3g}; raise 'epsilon' or lower 'clip_norm'"
        )


def _scale(sensitivity: float, noise: float, size: int) -> float:
    # To the ring, rounding moves each coordinate by up to half a step, with a unit and without it.
    return float(noise * (sensitivity * (1 + ROUNDING) / STEP + np.sqrt(size)))


def discrete_gaussian(scale: float, size: int, randomness: Randomness = os.urandom) -> Ints:
    """Draw integers x, (size,), with probabilities proportional to ``exp(-x^2 / (2 scale^2))``.

    By rejection from the discrete Laplace distribution (Canonne, Kamath and Steinke 2020,
    algorithms 2 and 3); in double precision, so that probabilities are off by some 1e-16 of
    themselves.

    Parameters
    ----------
    scale : in (0, 1e12].
    """
    if not 0 < scale <= _LARGEST_SCALE:
        raise ValueError(f"scale is {scale:g}, expected more than 0 and at most 1e12")
    width = np.floor(scale) + 1
    drawn = np.zeros(0, dtype=np.int64)
    while len(drawn) < size:
        # More than half are accepted.
        first, second, coin = _uniforms(3 * (2 * (size - len(drawn)) + 16), randomness)
        laplace = np.floor(-width * np.log(first)) - np.floor(-width * np.log(second))
        accept = np.exp(-((np.abs(laplace) - scale**2 / width) ** 2) / (2 * scale**2))
        drawn = np.concatenate([drawn, laplace[coin <= accept].astype(np.int64)])
    return drawn[:size]


def _uniforms(count: int, randomness: Randomness) -> Floats:
    """Return three rows of numbers in (0, 1], multiples of 2^-53."""
    bits = np.frombuffer(randomness(8 * count), dtype=np.uint64) >> np.uint64(11)
    return np.asarray((bits + np.uint64(1)) * 2.0**-53, np.float64).reshape(3, -1)
