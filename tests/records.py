"""Labelled records for the tests, and every way to split them over sites."""

from functools import reduce
from operator import add
from typing import Any, TypeVar

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from common.statistics.sums import Sums

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
S = TypeVar("S", bound=Sums)

SHARES = np.array([0.033, 0.051, 0.11, 0.0115, 0.111, 0.67, 0.0135])
N_CLASSES = len(SHARES)


def draw_records(n: int, n_features: int, seed: int = 0) -> tuple[Floats, Ints]:
    """Draw features of a falling spectrum and labels of HAM10000's class shares, all present."""
    rng = np.random.default_rng(seed)
    y = np.append(np.arange(N_CLASSES), rng.choice(N_CLASSES, n - N_CLASSES, p=SHARES))
    spread = np.arange(1, n_features + 1) ** -0.5
    centres = 0.8 * rng.standard_normal((N_CLASSES, n_features))
    return (centres[y] + rng.standard_normal((n, n_features))) * spread, y


def total(parts: list[S]) -> S:
    """Add what the sites answered."""
    return reduce(add, parts)


@st.composite
def partitions(draw: Any, y: Ints) -> list[Ints]:
    """Split records into sites: some are empty, have one class or a single record."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n_sites = draw(st.integers(1, 9))
    site = rng.integers(n_sites, size=len(y))
    kind = draw(st.sampled_from(["random", "a class a site", "single records", "one class alone"]))
    if kind == "a class a site":
        site = y % n_sites
    elif kind == "single records":
        lonely = rng.permutation(len(y))[: draw(st.integers(1, 5))]
        site[lonely] = n_sites + np.arange(len(lonely))
    elif kind == "one class alone":
        site[y == draw(st.integers(0, N_CLASSES - 1))] = n_sites
    return [np.flatnonzero(site == s) for s in range(site.max() + 2)]
