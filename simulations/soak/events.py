"""What happens to a federation in years, one thing after the other, in one run."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from client.egress.log import lines_of
from client.operator.site_rules import Operator
from common.errors import Reason
from common.site_folder import AUTHORITY
from server.deployment import operations
from server.deployment.pki import make_server
from server.deployment.server_files import SERVER, SERVER_KEY
from simulations.soak.checks import BrokenError
from simulations.soak.clock import clock_off_by
from simulations.soak.deployed import Deployment

_RUN = "run"
_CUT_SECONDS = 8.0
_HOUR = 3600.0
_CLOCK = "401"
"""What a node says when its signature is of another time."""


class Story:
    """One run and the events that come over it, each of which yields lines of what held.

    Parameters
    ----------
    deployment : whose nodes are connected.
    """

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._federation, self._network = deployment.federation, deployment.network

    def events(self) -> Iterator[str]:
        """Train, and let everything happen.

        Raises
        ------
        BrokenError
            If something does not hold.
        """
        federation = self._federation
        self._training = federation.start_training()
        federation.wait_for_round(_RUN, "join")
        for event in (self._cut_off, self._restored, self._expired, self._wrong_clock):
            yield from event()
        yield from self._upgraded()
        if federation.start_training().wait():
            raise BrokenError(f"the run does not end; see {federation.folder / 'logs'}")

    def _cut_off(self) -> Iterator[str]:
        name = self._federation.sites[1]
        self._network.cut_off(name)
        time.sleep(_CUT_SECONDS)
        self._network.reconnect(name)
        seen = self._logged()
        self._wait_for(seen + 1)
        _hold(not self._faults(), f"no site is left out: {self._faults()}")
        yield f"{name} was cut off for {_CUT_SECONDS:g} s in a round: it answered when it was back"

    def _restored(self) -> Iterator[str]:
        federation, backup = self._federation, self._federation.folder / "backup"
        federation.wait_for_round(_RUN, "prepare")
        _copy(federation.coordinator, backup)
        before = self._logged()
        self._wait_for(before + 1)
        self._deployment.cut_power(operations.COORDINATOR)
        shutil.rmtree(federation.coordinator)
        self._network.replace(operations.COORDINATOR)
        self._deployment.settle(operations.COORDINATOR)
        backup.rename(federation.coordinator)
        self._start_coordinator()
        self._wait_for(before + 1)
        asked = [entry["question"] for entry in federation.rounds(_RUN)]
        _hold(asked.count("moments") == 1, "what was summed up is not asked again")
        yield (
            "the coordinator's machine was lost; another one at its address, restored from a "
            f"backup of {before} rounds, goes on: no sum of the backup was asked for again"
        )

    def _expired(self) -> Iterator[str]:
        federation, folder = self._federation, self._federation.coordinator
        name = federation.sites[2]
        self._deployment.cut_power(operations.COORDINATOR)
        started = time.monotonic()
        self._certify(days=1)
        federation.start_server()
        life = 2 * (time.monotonic() - started) + 20
        federation.kill(operations.COORDINATOR)
        self._certify(days=life / 86400)
        ends = time.monotonic() + life
        self._start_coordinator()
        time.sleep(max(0.0, ends - time.monotonic()))
        sent = self._sent(name)
        self._deployment.restart_node(name)
        federation.wait(lambda: "handshake" in federation.log(name), f"{name} refuses the server")
        _hold(self._sent(name) == sent, f"nothing leaves {name}")
        yield f"the server's certificate expired after {life:.0f} s: {name}'s node refuses it"
        self._deployment.cut_power(operations.COORDINATOR)
        federation.kill(name)
        for file in (SERVER, SERVER_KEY):
            (folder / file).unlink()
        operations.renew(folder, [self._network.address(operations.COORDINATOR)])
        federation.start_node(name)
        self._start_coordinator()
        yield "renewed by `fedderm deploy renew`, with no other change: the run goes on"

    def _wrong_clock(self) -> Iterator[str]:
        wrong = clock_off_by(_HOUR)
        if wrong is None:
            yield "no clock was set wrong: install libfaketime for that"
            return
        federation, name = self._federation, self._federation.sites[3]
        log, sent = len(federation.log(name)), self._sent(name)
        self._deployment.restart_node(name, wrong)
        federation.wait(lambda: _CLOCK in federation.log(name)[log:], f"{name} is refused")
        _hold(self._sent(name) == sent, f"nothing leaves {name}")
        self._deployment.restart_node(name)
        yield f"{name}'s clock was an hour ahead: the server refused its node; set right, it is in"

    def _upgraded(self) -> Iterator[str]:
        federation, name = self._federation, self._federation.sites[0]
        newer = _newer_program(federation.folder / "newer")
        self._deployment.restart_node(name, ["env", f"PYTHONPATH={newer}"])
        federation.wait(lambda: Reason.PROGRAM in str(self._faults()), f"{name} is refused")
        federation.wait(lambda: self._training.poll() is not None, "the run stops")
        self._deployment.restart_node(name)
        federation.wait_for_nodes(federation.sites)
        yield f"{name} was upgraded in mid-run and refused: {Reason.PROGRAM}"

    def _certify(self, days: float) -> None:
        folder = self._federation.coordinator
        for file in (SERVER, SERVER_KEY):
            (folder / file).unlink()
        authority = folder / AUTHORITY, folder / operations.AUTHORITY_KEY
        hosts = [self._network.address(operations.COORDINATOR)]
        make_server(folder / SERVER, folder / SERVER_KEY, authority, hosts, days)

    def _start_coordinator(self) -> None:
        """Start the server and the training, with all nodes in it."""
        self._federation.start_server()
        self._federation.wait_for_nodes(self._federation.sites)
        self._training = self._federation.start_training()

    def _logged(self) -> int:
        return len(self._federation.rounds(_RUN))

    def _wait_for(self, rounds: int) -> None:
        self._federation.wait(lambda: self._logged() >= rounds, f"{rounds} rounds are logged")

    def _faults(self) -> dict[str, str]:
        """Return why sites failed in the run's last round that has a failure."""
        faults = [entry["faults"] for entry in self._federation.rounds(_RUN) if entry["faults"]]
        return dict(faults[-1]) if faults else {}

    def _sent(self, name: str) -> int:
        """Return how many messages have left a site."""
        return len([*lines_of(Operator.read(self._federation.site_file(name)))]) - 1


def _hold(holds: bool, what: str) -> None:
    if not holds:
        raise BrokenError(f"this does not hold: {what}")


def _copy(coordinator: Path, backup: Path) -> None:
    """Back a coordinator's folder up while it works, without Flower's database."""
    # A copy of a database in use may be torn; the nodes' keys in it are registered anew.
    shutil.copytree(coordinator, backup, ignore=shutil.ignore_patterns("superlink.db*", "*.lock"))


def _newer_program(folder: Path) -> Path:
    """Copy the program to a folder and change what a new version would."""
    root = operations.APP_DIR
    for room in ("client", "common", "server", "simulations"):
        shutil.copytree(root / room, folder / room, ignore=shutil.ignore_patterns("__pycache__"))
    module = folder / "common" / "__init__.py"
    module.write_text(module.read_text(encoding="utf-8") + "\nNEWER = True\n", encoding="utf-8")
    return folder
