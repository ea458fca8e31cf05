"""What secure sums cost: bytes and seconds beside plain ones, and in a round of fine-tuning."""

import itertools
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from flwr.app import RecordDict

from client.egress.activity_gate import Gated
from client.secure.identity import Identity
from client.secure.session import Masked, Session
from common.arrays import Floats32
from common.config.run import RunConfig
from common.statistics.sums import Sums
from common.wire.fixed_point import Ring
from common.wire.messages import Value, pack, size, unpack_arrays
from common.wire.secure_sums import SumRound, add_mask, question_digest, self_mask
from simulations.bench.finetune import fewest_seconds
from simulations.bench.measurement import Measurement, timed
from simulations.runtimes.experiment import make_sites, with_splits

_SITES = (10, 100)
_LENGTHS = (10_000, 5_000_000)
_TIMED = 3
"""Sites whose masking is timed; the others do the same."""

_RUN = "0a" * 8
_IMAGES, _EPOCHS, _ROUNDS, _REPEATS = 1500, 0.35, 2, 3
"""As in the benchmark of fine-tuning: rounds of as many steps as HAM10000 has by default."""


@dataclass(frozen=True)
class Weights(Sums):
    """``values`` (length,) in single precision, as weights are sent."""

    values: Floats32


def bench_secure(data: Path) -> Iterator[Measurement]:
    """Measure single sums of several sizes, then rounds of fine-tuning over ten sites."""
    for sites, length in itertools.product(_SITES, _LENGTHS):
        with tempfile.TemporaryDirectory() as folder:
            yield from sums(Path(folder), sites, length)
    yield _round_ratio(data)


def sums(folder: Path, sites: int, length: int) -> Iterator[Measurement]:
    """Compare a secure sum with a plain one over as many sites."""
    names = [f"site_{number:03}" for number in range(sites)]
    sessions = [_Site(folder / name, name) for name in names]
    keys = {name: site.key() for name, site in zip(names, sessions, strict=True)}
    for site in sessions[:_TIMED]:
        site.agree(keys)
    share = Weights(np.random.default_rng(0).standard_normal(length, dtype=np.float32))
    question = pack({}, {"question": "bench"})
    masked, at_site = timed(
        lambda: [
            site.mask(SumRound(_RUN, 1, names), share, question) for site in sessions[:_TIMED]
        ],
        time.process_time,
    )
    values: dict[str, Value] = {"envelopes": masked[0].envelopes, "seal": masked[0].seal}
    secure = pack({"masked": masked[0].vector.view(np.int64)}, values)
    plain = pack(share.to_record(), {})
    _, adding = timed(lambda: _add_plain(plain, share, sites), time.process_time)
    _, opening = timed(lambda: _add_secure(secure, masked[0].vector, sites), time.process_time)
    what = f"sum of {length:,} values over {sites} sites"
    # Opening it sends a seed, and a part for each site.
    up = size(secure) + 16 * (sites + 1)
    yield Measurement(f"secure {what}, a site", at_site / _TIMED, "s")
    yield Measurement(f"secure {what}, coordinator", opening, "s")
    yield Measurement(f"plain {what}, coordinator", adding, "s")
    yield Measurement(f"secure {what}, a site sends", up / 1e6, "MB")
    yield Measurement(f"secure {what}, bytes over plain", up / size(plain), "times")


class _Site:
    def __init__(self, folder: Path, name: str) -> None:
        folder.mkdir()
        self._folder, self._name = folder, name

    def key(self) -> bytes:
        with self._session().locked() as session:
            return bytes(session.signed_key(Identity.begun(self._folder))["key"])  # type: ignore[arg-type]

    def agree(self, keys: dict[str, bytes]) -> None:
        with self._session().locked() as session:
            session.agree(keys)

    def mask(self, sum_round: SumRound, share: Sums, question: RecordDict) -> Masked:
        with self._session().locked() as session:
            session.check(sum_round)
            return session.mask(sum_round, question_digest(question), Gated(share))

    def _session(self) -> Session:
        return Session(self._folder, self._folder / "seals", self._name, _RUN)


def _add_plain(content: RecordDict, zero: Weights, sites: int) -> Weights:
    total = Weights(np.zeros_like(zero.values))
    for _ in range(sites):
        total = total + zero.from_record(unpack_arrays(content))
    return total


def _add_secure(content: RecordDict, masked: Ring, sites: int) -> Ring:
    """Add masked shares, and take as many masks off as the coordinator does."""
    total = np.zeros_like(masked)
    for number in range(sites):
        total += unpack_arrays(content)["masked"].view(np.uint64)
        add_mask(total, self_mask(bytes(16), number.to_bytes(2)), -1)
    return total


def _round_ratio(data: Path) -> Measurement:
    """Compare rounds in which all layers are trained; runs with and without take turns."""
    config = RunConfig(
        method="finetune",
        stages=("all",),
        rounds=(_ROUNDS,),
        local_epochs=(_EPOCHS,),
        validate_every=_ROUNDS,
        predictions=1,
    )
    dataset = with_splits(data, config)
    chosen = np.random.default_rng(0).permutation(len(dataset))[:_IMAGES]
    seconds: dict[bool, list[float]] = {False: [], True: []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sites = folder / "sites"
        make_sites(dataset.select(np.sort(chosen)), sites, "dirichlet", 10, 1.0, config.seed)
        for number, secure in itertools.product(range(_REPEATS), seconds):
            out = folder / f"run-{number}-{secure}"
            places = {"sites": sites, "out": out, "cache": folder / "cache", "secure": secure}
            seconds[secure].append(fewest_seconds(config.model_copy(update=places), out)["all"])
    ratio = min(seconds[True]) / min(seconds[False])
    return Measurement("secure round of stage 'all', 10 sites, over plain", ratio, "", "at most 3")
