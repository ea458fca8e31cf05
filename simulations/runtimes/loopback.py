"""A deployed federation on one machine: a server and a node for each site, as processes.

The processes are those that a hospital starts, over TLS and with keys; only the ports are free ones
and the folders are filled in. Leaving the object ends their process groups.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from client.operator.cli import identity_line
from client.operator.node_key import public_key
from common.config.run import RunConfig
from common.errors import FedDermError
from common.flower_commands import flwr_environment
from common.json_types import Json, JsonObject
from common.site_folder import FILE as SITE_FILE
from server.deployment import operations
from server.deployment.nodes import states
from server.run.folder import ROUNDS_FILE
from simulations.runtimes.flower_run import free_ports
from simulations.runtimes.stop_signals import stops_deferred

FEDDERM = "from simulations.cli.main import main; main()"
"""What Python runs for the command ``fedderm``."""

_PATIENCE = 120.0
_LOGS = "logs"
TRAINING = "train"
"""Name of the process that shows a training."""


class Loopback:
    """The folders and processes of one federation.

    Parameters
    ----------
    folder : new; everything lies in it.
    data : folders of the sites' images, by name.
    config : the configuration of the runs; its ``out`` is the name of the first one.
    rules : keys of every site's file that differ from what :func:`operations.init` writes.
    address : the address of the server.
    hosts : commands that start others on a host of their own, by the name of a site or
        "coordinator"; where there is none, on this one.

    Attributes
    ----------
    hosts : the same; what is changed holds for what is started from then on.
    patience : seconds that whatever is waited for may take.
    logs : folder of what the processes write.
    """

    def __init__(
        self,
        folder: Path,
        data: Mapping[str, Path],
        config: RunConfig,
        rules: Mapping[str, Json] | None = None,
        address: str = "127.0.0.1",
        hosts: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self.folder, self.sites = folder, list(data)
        self.coordinator = folder / operations.COORDINATOR
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self.logs, self.patience = folder / _LOGS, _PATIENCE
        port, *own = free_ports(1 + len(data))
        self.hosts = dict(hosts or {})
        operations.init(folder, self.sites, [address], port)
        self.configure(config)
        for (name, images), node_port in zip(data.items(), own, strict=True):
            places: dict[str, Json] = {
                "data": str(images.resolve()),
                "port": node_port,
                "seals": "seals",
            }
            set_keys(self.site_file(name), {**places, **(rules or {})})
            self.hand_in_key(public_key(folder / name), name)
        self.logs.mkdir()
        peers = "".join(f"{identity_line(folder / name)}\n" for name in self.sites)
        for name in self.sites:
            (folder / name / "peers").write_text(peers)

    def hand_in_key(self, public: Path, name: str) -> None:
        """Put a node's public key where the coordinator registers it from."""
        shutil.copy(public, self.coordinator / operations.NODES / f"{name}.pub")

    def configure(self, config: RunConfig) -> None:
        """Set what the next runs are to do."""
        usual = RunConfig.read({"method": config.method, "sites": config.sites}).flat()
        odd = {key: value for key, value in config.flat().items() if value != usual[key]}
        settings = {"method": config.method, **odd}
        file = self.coordinator / operations.COORDINATOR_FILE
        head = file.read_text().partition("\n[run]\n")[0]
        file.write_text(
            head + "\n[run]\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in settings.items())
        )

    def site_file(self, name: str) -> Path:
        """Return the file of a site's operator."""
        return self.folder / name / SITE_FILE

    def start_server(self) -> None:
        """Start the server, and wait until all keys are registered."""
        self._start(operations.COORDINATOR, "deploy", "superlink", self.coordinator)
        self.at_coordinator("register")

    def at_coordinator(self, command: str, *arguments: object) -> None:
        """Run a command of ``fedderm deploy`` on the coordinator's folder, and wait for it.

        Raises
        ------
        FedDermError
            If it fails, with what it says.
        """
        line = self._command(
            operations.COORDINATOR, "deploy", command, self.coordinator, *arguments
        )
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        if done.returncode:
            raise FedDermError(f"`fedderm deploy {command}` failed: {done.stderr.strip()}")

    def start_node(self, name: str) -> None:
        """Start a site's node."""
        self._start(name, "site", "run", self.folder / name)

    def wait_for_nodes(self, names: Collection[str]) -> None:
        """Wait until as many nodes as there are names are connected.

        Raises
        ------
        FedDermError
            If they are not in time.
        """
        what = f"{len(names)} nodes are connected"
        self.wait(lambda: self.online() >= len(names), what, pause=2.0)

    def wait(self, holds: Callable[[], bool], what: str, pause: float = 0.2) -> None:
        """Wait until something holds, with seconds of pause between looks.

        Raises
        ------
        FedDermError
            If it does not in time.
        """
        end = time.monotonic() + self.patience
        while not holds():
            if time.monotonic() > end:
                raise FedDermError(f"not within {self.patience:g} s: {what}; see {self.logs}")
            time.sleep(pause)

    def online(self) -> int:
        """Return how many nodes the server believes to be connected."""
        environment = flwr_environment(self.coordinator / "flwr")
        host = self.hosts.get(operations.COORDINATOR, ())
        known = states(environment, _PATIENCE, host)
        return sum(state == "online" for state in known.values())

    def start_training(self) -> "subprocess.Popen[bytes]":
        """Start a training, and return its process."""
        return self._start(TRAINING, "deploy", "train", self.coordinator)

    def wait_for_round(self, out: str, question: str, after: int = 0) -> None:
        """Wait until a run's log has a round of a question, beyond its first ``after`` rounds.

        Raises
        ------
        FedDermError
            If it has none in time.
        """
        self.wait(
            lambda: question in [entry["question"] for entry in self.rounds(out)[after:]],
            f"round '{question}' of {out} is logged",
        )

    def rounds(self, out: str) -> list[JsonObject]:
        """Return the rounds that a run has logged so far."""
        file = self.coordinator / out / ROUNDS_FILE
        text = file.read_text(encoding="utf-8") if file.exists() else ""
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]

    def log(self, name: str) -> str:
        """Return what a process has written."""
        return (self.logs / f"{name}.log").read_text(errors="replace")

    def ended(self, name: str) -> bool:
        """Tell whether a process ended by itself."""
        return self._processes[name].poll() is not None

    def kill(self, name: str) -> None:
        """End a process and those that it started, at once, as a power cut does."""
        if process := self._processes.pop(name, None):
            _kill_group(process)

    def freeze(self, name: str, seconds: float) -> None:
        """Stop a process and those that it started for so long, as a machine that is suspended."""
        group = self._processes[name].pid
        os.killpg(group, signal.SIGSTOP)
        try:
            time.sleep(seconds)
        finally:
            os.killpg(group, signal.SIGCONT)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for name in list(self._processes):
            self.kill(name)

    def _start(self, name: str, *arguments: object) -> "subprocess.Popen[bytes]":
        command = self._command(name, *arguments)
        with self._log_file(name) as log, stops_deferred():
            process = self._processes[name] = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        return process

    def _command(self, name: str, *arguments: object) -> list[str]:
        host = self.hosts.get(operations.COORDINATOR if name == TRAINING else name, ())
        return [*host, sys.executable, "-c", FEDDERM, *map(str, arguments)]

    def _log_file(self, name: str) -> IO[bytes]:
        return (self.logs / f"{name}.log").open("ab")


def set_keys(file: Path, values: Mapping[str, Json]) -> None:
    """Change keys in a TOML file that has each of them on a line of its own."""
    text = file.read_text(encoding="utf-8")
    for key, value in values.items():
        # Not as a template: a path may hold what that would read as one.
        line = re.compile(rf"(?m)^{key} = .*$")
        text, replaced = line.subn(
            f"{key} = {json.dumps(value)}".replace("\\", r"\\"), text, count=1
        )
        assert replaced, key
    file.write_text(text, encoding="utf-8")


def _kill_group(process: "subprocess.Popen[bytes]") -> None:
    # Flower's processes start groups of their own, but watch for the end of who started them.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
