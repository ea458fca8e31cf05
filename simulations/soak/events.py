"""What happens to a federation in years, one thing after the other, in one run."""

import shutil
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

from client.egress.log import lines_of
from client.operator.site_rules import Operator
from common.errors import Reason
from common.site_folder import AUTHORITY
from server.deployment import operations
from server.deployment.operations import COORDINATOR
from server.deployment.pki import make_server
from server.deployment.server_files import SERVER, SERVER_KEY
from simulations.soak.checks import BrokenError
from simulations.soak.clock import clock_off_by
from simulations.soak.deployed import Deployment

_RUN = "run"
_CUT_SECONDS, _HOUR, _DAY = 8.0, 3600.0, 86400.0

_DATABASE = "superlink.db"

_HANDSHAKE, _CLOCK = "SSL/TLS handshake error", "this machine's clock"
_TAKEN, _ENDED = "SuperNode ID:", "Finished server process"
"""What a node writes of a bad certificate, of a clock, when it is connected, and when it ends."""


class Story:
    """One run and the events that come over it, each of which yields lines of what held.

    Parameters
    ----------
    deployment : nothing of it is started yet.
    """

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._federation, self._network = deployment.federation, deployment.network
        self._program = deployment.federation.folder / "program"
        self._restarted: dict[str, int] = {}

    @property
    def _of_its_own(self) -> list[str]:
        """What goes before the commands of the site that has its own program."""
        return ["env", f"PYTHONPATH={self._program}"]

    def events(self) -> Iterator[str]:
        """Train, and let everything happen.

        Raises
        ------
        BrokenError
            If something does not hold.
        """
        federation = self._federation
        # The first site has a program of its own, which can be another version.
        _copy_program(self._program)
        self._deployment.settle(federation.sites[0], self._of_its_own)
        federation.start_server()
        for name in federation.sites:
            federation.start_node(name)
        self._train()
        yield f"{len(federation.sites)} nodes are connected; the run has begun"
        events = (self._cut_off, self._restored, self._expired, self._wrong_clock, self._upgraded)
        for event in events:
            yield from event()
        if federation.start_training().wait():
            raise BrokenError(f"the run does not end; see {federation.folder / 'logs'}")

    def _train(self) -> None:
        """Start the training, and wait until all sites are in it."""
        before = self._logged()
        self._training = self._federation.start_training()
        self._federation.wait_for_round(_RUN, "join", before)

    def _cut_off(self) -> Iterator[str]:
        name = self._federation.sites[1]
        self._network.cut_off(name)
        time.sleep(_CUT_SECONDS)
        self._network.reconnect(name)
        self._wait_for(self._logged() + 1)
        _hold(not self._faults(), f"no site is left out: {self._faults()}")
        yield f"{name} was cut off for {_CUT_SECONDS:g} s in a round: it answered when it was back"

    def _restored(self) -> Iterator[str]:
        federation, backup = self._federation, self._federation.folder / "backup"
        federation.wait_for_round(_RUN, "prepare")
        _copy(federation.coordinator, backup)
        kept = self._logged()
        self._wait_for(kept + 1)
        self._deployment.cut_power(COORDINATOR)
        shutil.rmtree(federation.coordinator)
        self._network.replace(COORDINATOR)
        self._deployment.settle(COORDINATOR)
        backup.rename(federation.coordinator)
        federation.start_server()
        self._train()
        self._wait_for(self._logged() + 3)  # with the keys of secure sums
        asked = [entry["question"] for entry in federation.rounds(_RUN)]
        _hold(asked.count("moments") == 1, "what was summed up is not asked again")
        yield (
            "the coordinator's machine was lost; another one at its address, restored from a "
            f"backup of {kept} rounds, goes on: no sum of the backup was asked for again"
        )

    def _expired(self) -> Iterator[str]:
        federation, name = self._federation, self._federation.sites[2]
        self._deployment.cut_power(COORDINATOR)
        started = time.monotonic()
        self._certify(_DAY)
        federation.start_server()
        life = 2 * (time.monotonic() - started) + 20
        self._deployment.cut_power(COORDINATOR)
        self._certify(life)
        ends = time.monotonic() + life
        federation.start_server()
        time.sleep(max(0.0, ends - time.monotonic()))
        sent = self._sent(name)
        said = self._restart(name)
        self._wait_to_read(name, said, _HANDSHAKE)
        _hold(self._sent(name) == sent, f"nothing leaves {name}")
        yield f"the server's certificate expired after {life:.0f} s: {name}'s node refuses it"
        self._deployment.cut_power(COORDINATOR)
        self._discard_certificate()
        operations.renew(federation.coordinator, [self._network.address(COORDINATOR)])
        federation.start_server()
        # Whoever met the expired one may hang and try no more.
        for each in federation.sites:
            self._restart(each, self._of_its_own if each == federation.sites[0] else ())
        yield "it was renewed by `fedderm deploy renew`, and server and nodes started again"

    def _wrong_clock(self) -> Iterator[str]:
        wrong = clock_off_by(_HOUR)
        if wrong is None:
            yield "no clock was set wrong: install libfaketime for that"
            return
        name = self._federation.sites[3]
        sent = self._sent(name)
        said = self._restart(name, wrong)
        self._wait_to_read(name, said, _CLOCK)
        self._wait_to_read(name, said, _ENDED)
        _hold(self._sent(name) == sent, f"nothing leaves {name}")
        self._restart(name)
        yield f"{name}'s clock was an hour ahead: its node said so, was refused and ended"

    def _upgraded(self) -> Iterator[str]:
        federation, name = self._federation, self._federation.sites[0]
        # Until it has missed a node the server takes the one before for connected.
        for each, said in self._restarted.items():
            self._wait_to_read(each, said, _TAKEN)
        self._train()
        yield "clock set right, the run goes on with all sites"
        module = self._program / "common" / "__init__.py"
        older = module.read_text(encoding="utf-8")
        module.write_text(f"{older}\nNEWER = True\n", encoding="utf-8")
        federation.wait(lambda: self._training.poll() is not None, "the run stops")
        _hold(Reason.PROGRAM in self._faults().get(name, ""), f"{name} is refused for its program")
        module.write_text(older, encoding="utf-8")
        yield f"{name} was upgraded in mid-run and left out: {self._faults()[name]}"

    def _restart(self, name: str, before: Sequence[str] = ()) -> int:
        """Start a site's node again; return how long its log was before."""
        self._restarted[name] = said = len(self._federation.log(name))
        self._deployment.restart_node(name, before)
        return said

    def _certify(self, seconds: float) -> None:
        """Replace the server's certificate by one that is valid for so long."""
        self._discard_certificate()
        folder = self._federation.coordinator
        certificate = folder / SERVER, folder / SERVER_KEY
        authority = folder / AUTHORITY, folder / operations.AUTHORITY_KEY
        hosts = [self._network.address(COORDINATOR)]
        make_server(*certificate, authority, hosts, seconds / _DAY)

    def _discard_certificate(self) -> None:
        for file in (SERVER, SERVER_KEY):
            (self._federation.coordinator / file).unlink()

    def _logged(self) -> int:
        return len(self._federation.rounds(_RUN))

    def _wait_for(self, rounds: int) -> None:
        self._federation.wait(lambda: self._logged() >= rounds, f"{rounds} rounds are logged")

    def _wait_to_read(self, name: str, after: int, word: str) -> None:
        """Wait until a word stands in what a site's node has written since."""
        federation = self._federation
        federation.wait(lambda: word in federation.log(name)[after:], f"{name} writes '{word}'")

    def _faults(self) -> dict[str, str]:
        """Return why sites failed in the run's last round with answers or failures."""
        faults = [e["faults"] for e in self._federation.rounds(_RUN) if e["question"] != "close"]
        return dict(faults[-1]) if faults else {}

    def _sent(self, name: str) -> int:
        """Return how many messages have left a site."""
        return len([*lines_of(Operator.read(self._federation.site_file(name)))]) - 1


def _hold(holds: bool, what: str) -> None:
    if not holds:
        raise BrokenError(f"this does not hold: {what}")


def _copy(coordinator: Path, backup: Path) -> None:
    """Back a coordinator's folder up while it works."""
    shutil.copytree(coordinator, backup, ignore=shutil.ignore_patterns(f"{_DATABASE}*", "*.lock"))
    # A copied file of a database in use may be torn.
    with (
        closing(sqlite3.connect(coordinator / _DATABASE)) as source,
        closing(sqlite3.connect(backup / _DATABASE)) as copy,
    ):
        source.backup(copy)


def _copy_program(folder: Path) -> None:
    for room in ("client", "common", "server", "simulations"):
        source = operations.APP_DIR / room
        shutil.copytree(source, folder / room, ignore=shutil.ignore_patterns("__pycache__"))
