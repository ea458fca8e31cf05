"""Random draws at a private site, from the operating system's randomness alone."""

import os

import numpy as np
from numpy.typing import NDArray

randomness = os.urandom
"""Source of noise and samples; never a run's seed, which the coordinator knows."""


def sample(n: int, rate: float) -> NDArray[np.bool_]:
    """Draw each of n units by itself with probability ``rate``; return who is drawn, (n,)."""
    return np.asarray(uniform(n) < rate)


def uniform(n: int) -> NDArray[np.float64]:
    """Draw numbers in [0, 1), (n,), multiples of 2^-53."""
    bits = np.frombuffer(randomness(8 * n), dtype=np.uint64) >> np.uint64(11)
    return np.asarray(bits * 2.0**-53)
