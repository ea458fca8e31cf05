"""What a message costs at a hospital whose log is long: read, verified, added to and sealed."""

import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import patch

import numpy as np

from client.egress import log
from client.egress.log_files import EgressLog
from client.egress.questions import ROUND, Question
from client.operator.site_rules import Operator
from common.site_folder import FILE
from simulations.bench.measurement import Measurement, timed

_ENTRIES = (10, 1_000, 100_000)
_MESSAGES = 21
_SUMS = {"loss": np.ones((1, 7)), "gradient": np.ones((1, 7, 513))}


def bench_egress_log() -> Iterator[Measurement]:
    """Yield what a message costs by the log's entries, and what it costs to verify all of them.

    The entries are those of an SVM's losses and gradients. Figures are the median of some messages.
    Line and seal are on disk before a message leaves: what is not CPU is the disk.
    """
    for entries in _ENTRIES:
        with tempfile.TemporaryDirectory() as name:
            yield from _costs(_hospital(Path(name)), entries)


def _costs(operator: Operator, entries: int) -> Iterator[Measurement]:
    _fill(operator, entries)
    what = f"egress log of {entries:,} entries"
    times = [timed(lambda: _cpu(lambda: _message(operator))) for _ in range(_MESSAGES)]
    cpu, wall = np.median(times, axis=0)
    yield Measurement(f"{what}, a message", 1e3 * wall, "ms")
    yield Measurement(f"{what}, a message, CPU", 1e3 * cpu, "ms")
    yield Measurement(f"{what}, a message, memory", _megabytes(operator), "MB")
    yield Measurement(f"{what}, verified whole, CPU", _cpu(lambda: log.verified(operator)), "s")


def _hospital(folder: Path) -> Operator:
    file = folder / FILE
    file.write_text(
        'name = "bench"\nsuperlink = "127.0.0.1:9092"\ndata = "data"\nseals = "seals"\n[rules]\n'
        "rounds = 1000000\nquestions = 1000000\nrounds_a_day = 1000000\nmegabytes_a_day = 1000000\n"
    )
    return Operator.read(file)


def _cpu(run: Callable[[], object]) -> float:
    """Return the seconds of CPU that a call takes."""
    before = time.process_time()
    run()
    return time.process_time() - before


def _message(operator: Operator) -> None:
    """Do what the guard does with the log for one message."""
    log.refuse_beyond_quota(operator, ROUND)
    log.add(operator, Question(7, "5", ROUND), _SUMS, 28_784, ())


def _fill(operator: Operator, entries: int) -> None:
    """Write a log of so many entries, of which only the last is sealed and waits for the disk."""
    _message(operator)
    egress = EgressLog.of(operator)
    lines = [line for part in egress.files() for line in part.lines or []]
    with egress.opened():
        with patch("os.fsync"), patch("client.log_file.write_atomically"):
            for _ in range(entries - 2):
                egress.append(lines[0])
        egress.append(lines[0])


def _megabytes(operator: Operator) -> float:
    """Return the most memory that a message takes."""
    tracemalloc.start()
    try:
        _message(operator)
        return tracemalloc.get_traced_memory()[1] / 1e6
    finally:
        tracemalloc.stop()
