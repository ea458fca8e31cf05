"""What a message costs at a hospital whose log is long: read, verified, added to and sealed."""

import tempfile
import tracemalloc
from collections.abc import Iterator
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

    The entries are those of an SVM's losses and gradients. Line and seal are on disk before a
    message leaves, so the disk's time is in the figures: the median of some messages.
    """
    for entries in _ENTRIES:
        with tempfile.TemporaryDirectory() as name:
            yield from _costs(_hospital(Path(name)), entries)


def _costs(operator: Operator, entries: int) -> Iterator[Measurement]:
    _fill(operator, entries)
    what = f"egress log of {entries:,} entries"
    times = [timed(lambda: _message(operator))[1] for _ in range(_MESSAGES)]
    yield Measurement(f"{what}, a message", 1e3 * float(np.median(times)), "ms")
    yield Measurement(f"{what}, a message's memory", _megabytes(operator), "MB")
    yield Measurement(f"{what}, verified whole", timed(lambda: log.verified(operator))[1], "s")


def _hospital(folder: Path) -> Operator:
    file = folder / FILE
    file.write_text(
        'name = "bench"\nsuperlink = "127.0.0.1:9092"\ndata = "data"\nseals = "seals"\n[rules]\n'
        "rounds = 1000000\nquestions = 1000000\nrounds_a_day = 1000000\nmegabytes_a_day = 1000000\n"
    )
    return Operator.read(file)


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
