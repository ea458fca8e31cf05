"""A figure of a benchmark, and the clock that measures it."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Measurement:
    """One figure of a benchmark and the bound, if any, that it is held to."""

    what: str
    value: float
    unit: str
    target: str = ""


def timed(run: Callable[[], T]) -> tuple[T, float]:
    """Return what a call returns, and its seconds."""
    start = time.perf_counter()
    returned = run()
    return returned, time.perf_counter() - start
