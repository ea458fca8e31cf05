"""A figure of a benchmark, and the clock that measures it."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Measurement:
    """One figure of a benchmark and the bound, if any, that it is held to."""

    what: str
    value: float
    unit: str
    target: str = ""


def timed(run: Callable[[], T], clock: Callable[[], float] = time.perf_counter) -> tuple[T, float]:
    """Return what a call returns, and its seconds by a clock."""
    start = clock()
    returned = run()
    return returned, clock() - start


def peak_memory() -> float:
    """Return the peak resident memory of this process, in GiB."""
    # Not getrusage: its peak includes that of the parent process before this one's start.
    [kilobytes] = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(kilobytes) / 2**20
