"""What a secure sum costs as sites become many: ``python -m simulations.bench.secure_sites``.

Times are seconds of CPU, of a site's own process and of the coordinator's.
"""

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
from flwr.app import RecordDict

from common.statistics.sums import Sums
from common.wire.fixed_point import length, schema
from common.wire.messages import Value, pack, size
from common.wire.secure_sums import (
    KEY,
    PEERS,
    UNMASK,
    SumRound,
    add_mask,
    context,
    question_digest,
    seal,
    self_mask,
    split,
    threshold,
)
from server.federation.question import LossPolicy, Question
from server.federation.secure import SecureSums
from simulations.bench.measurement import Measurement, peak_memory, timed
from simulations.bench.secure import Weights, sums

_SITES = (100, 300, 1000)
_LENGTHS = (10_000, 5_000_000)
_ENVELOPE = bytes(16 + 8 * 14 + 16)
"""As long as one of an SVM's: a part of a seed, counts of two for each of seven problems, a tag."""

_SEED = bytes(16)

T = TypeVar("T")


class _Sites:
    """Answers for many sites, all with the same: what is timed is the coordinator.

    Attributes
    ----------
    traffic : bytes to and from all sites, but for the masked values.
    """

    def __init__(self, names: list[str], zero: Sums) -> None:
        self._names, self._zero = names, zero
        self.traffic = 0

    def __call__(
        self,
        question: str,
        contents: Mapping[str, RecordDict],
        read: Callable[[str, RecordDict], T],
    ) -> Iterator[tuple[str, T]]:
        reply = self._reply(question, contents[self._names[0]])
        sent = sum(len(array.data) for array in reply.array_records["arrays"].values())
        for name, content in contents.items():
            self.traffic += size(content) + size(reply) - sent
            yield name, read(name, reply)

    def _reply(self, question: str, content: RecordDict) -> RecordDict:
        count = len(self._names)
        if question == KEY:
            return pack({}, {"key": bytes(32), "signature": bytes(64)})
        if question == PEERS:
            values: Value = [*self._names]
            return pack({}, {"round": 0, "members": values, "threshold": threshold(count)})
        if question == UNMASK:
            return pack({}, {"seed": _SEED, "parts": [_SEED] * count})
        keys, asked = [bytes(32)] * count, SumRound.read(content)
        bound_to = context(asked, keys, question_digest(content), schema(self._zero, count))
        masked = np.zeros(length(self._zero), np.uint64)
        add_mask(masked, self_mask(_SEED, bound_to), 1)
        envelopes: Value = [_ENVELOPE] * count
        values_ = {"envelopes": envelopes, "seal": seal(_SEED, bound_to)}
        return pack({"masked": masked.view(np.int64)}, values_)


def bench_secure_sites(counts: Sequence[int], lengths: Sequence[int]) -> Iterator[Measurement]:
    """Measure a secure sum at one site and at the coordinator, and the protocol's own messages."""
    for count in counts:
        _, sharing = timed(partial(split, _SEED, threshold(count), count), time.process_time)
        yield Measurement(f"{count:,} sites: parts of a seed, a site", sharing, "s")
        for values in lengths:
            with tempfile.TemporaryDirectory() as folder:
                yield from islice(sums(Path(folder), count, values), 1)
            yield from _coordinator(count, values)


def _coordinator(count: int, values: int) -> Iterator[Measurement]:
    names = [f"site_{number:05}" for number in range(count)]
    zero = Weights(np.zeros(values, np.float32))
    sites = _Sites(names, zero)
    secure = SecureSums(sites, "0a")
    secure.agree(names)
    agreeing, sites.traffic = sites.traffic, 0
    _, seconds = timed(
        lambda: secure.sum(Question("bench", zero), LossPolicy.RESTART), time.process_time
    )
    what = f"{count:,} sites, {values:,} values"
    yield Measurement(f"{what}: coordinator", seconds, "s")
    yield Measurement(f"{what}: beside the values, a site", sites.traffic / count / 1e3, "kB")
    yield Measurement(f"{what}: keys of the run, a site", agreeing / count / 1e3, "kB")
    yield Measurement(f"{what}: peak memory so far", peak_memory(), "GiB")


if __name__ == "__main__":
    for figure in bench_secure_sites(_SITES, _LENGTHS):
        print(f"{figure.what:60} {figure.value:10.4g} {figure.unit}", flush=True)
