"""Stops, by Ctrl-C or SIGTERM, that leave no process behind."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def sigterm_raises() -> Iterator[None]:
    """Let SIGTERM raise :class:`SystemExit`, so that what was started is ended on the way out."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def stops_deferred() -> Iterator[None]:
    """Let a stop wait until the block is left.

    Enter it while a process is started: a stop at that moment would leave a process that is not yet
    known. The signals are not blocked, because processes inherit that.
    """
    received: list[int] = []
    stops = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(stop, lambda number, _: received.append(number)) for stop in stops]
    try:
        yield
    finally:
        for stop, handler in zip(stops, before, strict=True):
            signal.signal(stop, handler)
        if received:
            signal.raise_signal(received[0])
