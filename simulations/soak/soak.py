"""A federation that works for hours while things go wrong, and what is checked after each run."""

import json
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path
from shutil import rmtree
from typing import Any

import numpy as np

from common.config.run import RunConfig
from common.errors import FedDermError
from common.privacy.accounting import SampledGaussian
from common.privacy.linear import plan
from common.storage.whole_files import append
from simulations.runtimes.network import Network
from simulations.soak.checks import (
    BrokenError,
    asked,
    nothing_leaked,
    nothing_named,
    paid_once,
    same_model,
)
from simulations.soak.deployed import PATIENCE, QUICK, Deployment, deploy, host_names
from simulations.soak.disk import Disk, small_disk
from simulations.soak.faults import ANSWERING, KINDS, Fault, Hosts
from simulations.soak.usage import Usage, usage

RESULTS = "soak.jsonl"

EXACT: Mapping[str, Any] = {**QUICK, "timeout": 120.0}
"""A run whose model is the same each time; a site that is killed is not waited for for an hour."""

PRIVATE: Mapping[str, Any] = {
    "method": "private",
    "epsilon": 1.0,
    "steps": 3,
    **{key: value for key, value in EXACT.items() if key not in ("head", "min_active")},
    "components": 16,
}
"""A private run over the same sites, in secure sums too; its noise is each time another."""

BOUNDS = Usage(processes=4, megabytes=100.0, handles=40, disk_megabytes=60.0)
"""How much more a host may use after a run than after the first of its kind.

The server's database keeps the room of its fullest moment; the largest answers to one question are
50 MB together.
"""

_DISK_MEGABYTES = 512
_EPSILON = 1000.0
_MOST_STARTS = 8


@dataclass
class Run:
    """One run and what came over it: a line of the results.

    Attributes
    ----------
    kind : "secure" or "private".
    faults : that struck.
    starts : of the training, the first included.
    asked_again : sums that were there and were asked for again.
    usage : of each host, after it.
    broken : what does not hold.
    """

    number: int
    kind: str
    faults: list[Fault] = field(default_factory=list)
    starts: int = 0
    seconds: float = 0.0
    asked_again: int = 0
    usage: dict[str, Usage] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        said = "; ".join(self.broken) or "all holds"
        faults = ", ".join(map(str, self.faults)) or "no fault"
        return (
            f"run {self.number}, {self.kind}, {self.seconds:.0f} s, {self.starts} starts: "
            f"{said} ({faults})"
        )


class Soak:
    """A federation that trains one run after the other, secure and private in turn.

    Parameters
    ----------
    deployment : its folders and hosts; all nodes are to be started.
    disks : of its hosts.
    seed : of the faults.
    """

    def __init__(
        self,
        deployment: Deployment,
        disks: Mapping[str, Disk],
        seed: int,
    ) -> None:
        self._deployment, self._federation = deployment, deployment.federation
        self._hosts = Hosts(deployment, disks, self._start_coordinator)
        self._rng = np.random.default_rng(seed)
        self._usual: dict[str, Counter[str]] = {}
        self._first: dict[str, dict[str, Usage]] = {}
        self._private_runs = 0
        self._names = deployment.names()
        self._run = Run(0, "")

    def runs(self, seconds: float) -> Iterator[Run]:
        """Train until time is up, which the first run of each kind, undisturbed, does not count."""
        self._federation.start_server()
        for name in self._federation.sites:
            self._federation.start_node(name)
        yield self._trained(0)
        yield self._trained(1)
        end = time.monotonic() + seconds
        for number in count(2):
            if time.monotonic() > end:
                return
            yield self._trained(number, disturbed=True)

    def _trained(self, number: int, disturbed: bool = False) -> Run:
        kind = "private" if number % 2 else "secure"
        run = self._run = Run(number, kind)
        settings = PRIVATE if kind == "private" else EXACT
        self._private_runs += kind == "private"
        config = RunConfig.read({**settings, "out": self._out})
        self._federation.configure(config)
        begun = time.monotonic()
        self._start_training()
        if disturbed:
            rounds = sum(self._usual[kind].values())
            for fault in self._hosts.drawn(self._rng, rounds):
                self._suffer(fault)
        self._go_on(math.inf)
        run.seconds = round(time.monotonic() - begun, 1)
        self._check()
        rmtree(self._federation.coordinator / self._out)
        return run

    @property
    def _out(self) -> str:
        return f"run-{self._run.number}"

    def _suffer(self, fault: Fault) -> None:
        """Let a fault happen once the run is so far; one that it does not reach never happens."""
        if self._go_on(fault.after):
            return
        self._run.faults.append(fault)
        KINDS[fault.kind].strike(self._hosts, fault.host)
        time.sleep(fault.seconds)
        KINDS[fault.kind].mend(self._hosts, fault.host)

    def _go_on(self, rounds: float) -> bool:
        """Wait until so many rounds are logged, or for the run's end; tell whether it has ended.

        Where it stops, start it again, as its operators would.
        """
        seen, end = -1, 0.0
        while (logged := len(self._federation.rounds(self._out))) < rounds:
            if (code := self._training.poll()) == 0:
                return True
            if code:
                self._start_training()
            if logged != seen:
                seen, end = logged, time.monotonic() + PATIENCE
            if time.monotonic() > end:
                raise BrokenError(f"{self._out} hangs after round {seen}")
            time.sleep(0.5)
        return False

    def _start_coordinator(self) -> None:
        self._federation.start_server()
        self._start_training()

    def _start_training(self) -> None:
        if self._run.starts == _MOST_STARTS:
            raise BrokenError(f"{self._out} does not end in {_MOST_STARTS} starts")
        self._training = self._federation.start_training()
        self._run.starts += 1

    def _check(self) -> None:
        """Check all that must hold, and note what does not."""
        run = self._run
        self._usual.setdefault(run.kind, asked(self._federation, self._out))
        checks: list[Callable[[], object]] = [
            lambda: [*nothing_leaked(self._federation)],
            lambda: nothing_named(self._federation, self._names),
            lambda: paid_once(self._federation, _costs(), self._private_runs),
            self._keeps_its_checkpoint,
            self._stays_flat,
        ]
        if run.kind == "secure":
            expected = self._deployment.expected
            checks.append(lambda: same_model(self._federation, self._out, expected))
        for check in checks:
            try:
                check()
            except FedDermError as error:
                run.broken.append(str(error))

    def _keeps_its_checkpoint(self) -> None:
        again = asked(self._federation, self._out) - self._usual[self._run.kind]
        self._run.asked_again = again.total()
        # Where a run is stopped, one sum may be under way: it is asked for, and opened, again.
        if again.total() > 2 * (self._run.starts - 1):
            raise BrokenError(f"sums that were there were asked for again: {dict(again)}")

    def _stays_flat(self) -> None:
        self._federation.wait(self._idle, "no site answers any more")
        found = {name: self._used(name) for name in host_names()}
        self._run.usage = found
        first = self._first.setdefault(self._run.kind, found)
        grown = {name: found[name].grown(first[name], BOUNDS) for name in found}
        if any(grown.values()):
            words = "; ".join(f"{name}: {', '.join(g)}" for name, g in grown.items() if g)
            raise BrokenError(f"not flat: {words}")

    def _idle(self) -> bool:
        return not any(self._hosts.having(name, ANSWERING) for name in self._federation.sites)

    def _used(self, name: str) -> Usage:
        processes = self._deployment.network.processes(name)
        return usage(processes, self._federation.folder / name)


def soak(data: Path, out: Path, minutes: float, seed: int) -> Iterator[str]:
    """Let a federation work for some time; write a line of JSON a run, and yield one to read.

    Raises
    ------
    BrokenError
        At once if a run hangs; at the end if anything did not hold.
    """
    with ExitStack() as stack:
        network = stack.enter_context(Network(host_names()))
        deployment = deploy(data, out, network, {"epsilon": _EPSILON}, EXACT)
        stack.enter_context(deployment.federation)
        disks = {
            name: stack.enter_context(small_disk(folder, _DISK_MEGABYTES))
            for name, folder in deployment.folders().items()
        }
        broken = []
        for run in Soak(deployment, disks, seed).runs(60 * minutes):
            append(out / RESULTS, f"{json.dumps(asdict(run))}\n".encode())
            broken += run.broken
            yield str(run)
    yield from table(out)
    if broken:
        raise BrokenError(f"{len(broken)} checks failed; see {out / RESULTS}")


def table(out: Path) -> Iterator[str]:
    """Sum the results up: runs, faults by kind, and what hosts used after the first and at most.

    Parameters
    ----------
    out : the folder of :func:`soak`.
    """
    lines = (out / RESULTS).read_text(encoding="utf-8").splitlines()
    runs = [json.loads(line) for line in lines]
    kinds = Counter(fault["kind"] for run in runs for fault in run["faults"])
    yield f"{len(runs)} runs, {sum(run['starts'] for run in runs)} starts"
    yield f"faults: {', '.join(f'{n} {kind}' for kind, n in sorted(kinds.items())) or 'none'}"
    yield f"sums asked for again: {sum(run['asked_again'] for run in runs)}"
    yield f"checks failed: {sum(len(run['broken']) for run in runs)}"
    for name, first in runs[0]["usage"].items():
        most = {key: max(run["usage"][name][key] for run in runs) for key in first}
        yield f"{name}: {', '.join(f'{key} {first[key]}, at most {most[key]}' for key in first)}"


def _costs() -> list[SampledGaussian]:
    costs = plan(RunConfig.read(PRIVATE))
    assert costs is not None
    return list(costs)
