"""What may go wrong on a host, drawn by chance from a seed."""

import os
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from server.deployment.operations import COORDINATOR
from simulations.soak.clock import clock_off_by
from simulations.soak.deployed import Deployment
from simulations.soak.disk import Disk

ANSWERING = b"client.operator.flower_process"
"""What stands in the command of a process that answers a message."""

_FAR = 3600.0
_SHORTEST, _LONGEST = 1.0, 90.0
"""Seconds until a fault is mended: the server misses a node within them, or does not."""

_SOON = 20.0
"""Seconds within which a site is asked again."""

_MOST = 3
"""Faults in a run, at most."""


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong, once a run has logged so many rounds.

    Attributes
    ----------
    kind : a name of :data:`KINDS`.
    host : where.
    after : rounds of the run that are logged before.
    seconds : until it is mended.
    """

    kind: str
    host: str
    after: int
    seconds: float

    def __str__(self) -> str:
        return f"{self.kind} at {self.host} after round {self.after} for {self.seconds:.0f} s"


@dataclass(frozen=True)
class Kind:
    """A kind of fault.

    Attributes
    ----------
    possible : tells whether it may strike a host.
    strike, mend : do it to a host, and undo it.
    """

    possible: Callable[["Hosts", str], bool]
    strike: Callable[["Hosts", str], None]
    mend: Callable[["Hosts", str], None]


@dataclass
class Hosts:
    """The hosts of a federation, to which things happen.

    Attributes
    ----------
    disks : of the hosts that have one which can be filled.
    restart : starts a coordinator that was killed, and its training.
    """

    deployment: Deployment
    disks: Mapping[str, Disk]
    restart: Callable[[], None]

    def start(self, host: str) -> None:
        """Start what runs on a host."""
        if host == COORDINATOR:
            self.restart()
        else:
            self.deployment.federation.start_node(host)

    def signal(self, host: str, number: int, word: bytes = b"") -> None:
        """Send a signal to all processes of a host in whose command a word stands."""
        for process in self.having(host, word):
            with suppress(OSError):
                os.kill(process, number)

    def kill_answer(self, host: str) -> None:
        """Kill the process that answers the next message, if there is one soon."""
        end = time.monotonic() + _SOON
        while not self.having(host, ANSWERING) and time.monotonic() < end:
            time.sleep(0.1)
        self.signal(host, signal.SIGKILL, ANSWERING)

    def having(self, host: str, word: bytes) -> list[int]:
        """Return the processes of a host in whose command a word stands."""
        processes = self.deployment.network.processes(host)
        return [process for process in processes if word in _command(process)]

    def drawn(self, rng: np.random.Generator, rounds: int) -> list[Fault]:
        """Draw what goes wrong in a run of so many rounds, in its order."""
        sites = self.deployment.federation.sites
        places = [
            (kind, host)
            for kind, what in KINDS.items()
            for host in [*sites, COORDINATOR]
            if what.possible(self, host)
        ]
        faults = [
            Fault(
                *places[rng.integers(len(places))],
                int(rng.integers(1, rounds)),
                float(np.exp(rng.uniform(*np.log((_SHORTEST, _LONGEST))))),
            )
            for _ in range(rng.integers(1, _MOST + 1))
        ]
        return sorted(faults, key=lambda fault: fault.after)


def _command(process: int) -> bytes:
    with suppress(OSError):
        return Path("/proc", str(process), "cmdline").read_bytes()
    return b""


KINDS: Mapping[str, Kind] = {
    "power cut": Kind(
        lambda hosts, host: True,
        lambda hosts, host: hosts.deployment.cut_power(host),
        Hosts.start,
    ),
    "answer killed": Kind(
        lambda hosts, host: host != COORDINATOR,
        Hosts.kill_answer,
        lambda hosts, host: None,
    ),
    "frozen": Kind(
        lambda hosts, host: True,
        lambda hosts, host: hosts.signal(host, signal.SIGSTOP),
        lambda hosts, host: hosts.signal(host, signal.SIGCONT),
    ),
    "cut off": Kind(
        lambda hosts, host: True,
        lambda hosts, host: hosts.deployment.network.cut_off(host),
        lambda hosts, host: hosts.deployment.network.reconnect(host),
    ),
    "disk full": Kind(
        lambda hosts, host: host in hosts.disks,
        lambda hosts, host: hosts.disks[host].fill(),
        lambda hosts, host: hosts.disks[host].free(),
    ),
    "clock wrong": Kind(
        lambda hosts, host: host != COORDINATOR and clock_off_by(_FAR) is not None,
        lambda hosts, host: hosts.deployment.restart_node(host, clock_off_by(_FAR) or ()),
        lambda hosts, host: hosts.deployment.restart_node(host),
    ),
}
"""Everything that may go wrong, by name."""
