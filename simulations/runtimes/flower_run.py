"""The simulated runtime: drive ``flwr run`` from Python and leave no process behind.

``flwr run`` starts a local SuperLink that stays, which starts an executor and, with each
run, Ray. Works offline. Linux only: processes are found by their environment in ``/proc``.
"""

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from common.flower_commands import (
    COMPLETED,
    ConfigValue,
    flwr,
    flwr_environment,
    run_config_toml,
)
from common.flower_inside import FAILED_START, local_superlink_environment
from simulations.runtimes.stop_signals import sigterm_raises

_STARTS = 3
_FIRST_PORT = 10_000
_EPHEMERAL_PORTS = Path("/proc/sys/net/ipv4/ip_local_port_range")


def flwr_run(
    app_dir: Path, run_config: Mapping[str, ConfigValue], sites: int, home: Path
) -> subprocess.CompletedProcess[str]:
    """Run a Flower app on simulated sites, wait for its end and end what was started.

    Parameters
    ----------
    app_dir : the folder with the app's ``pyproject.toml``. Only the app is copied from it: data is
        found by an absolute path in the run configuration.
    run_config : overrides of ``[tool.flwr.app.config]``, which must name every key.
    sites : number of simulated sites, one CPU core each while they answer.
    home : Flower's folder for this run: its database, its logs and the unpacked app.

    Returns
    -------
    The log of the run as `stdout`. `returncode` is 0 only if the server app returned: ``flwr run``
    itself exits with 0 when it raised.
    """
    home.mkdir(parents=True, exist_ok=True)
    config_file = home / "run-config.toml"
    config_file.write_text(run_config_toml(run_config))
    # Ray's sockets lie in its folder, and a socket's path may have 107 characters only.
    with sigterm_raises(), tempfile.TemporaryDirectory(prefix="ray-") as ray_dir:
        federation = f"num-supernodes={sites} client-resources-num-cpus=1"
        options = ["--federation-config", federation, "--run-config", str(config_file)]
        try:
            for _ in range(_STARTS):
                environment = _environment(home, ray_dir)
                run = flwr(environment, "run", str(app_dir), "--stream", *options)
                if FAILED_START not in run.stdout:
                    break
            if run.returncode == 0 and last_status(environment) != COMPLETED:
                run.returncode = 1
        finally:
            # No other process knows this folder: it marks the processes of this call.
            end_processes(f"RAY_TMPDIR={ray_dir}")
    return run


def _environment(home: Path, ray_dir: str) -> dict[str, str]:
    return {
        **flwr_environment(home),
        **local_superlink_ports(),
        "RAY_TMPDIR": ray_dir,
        # Even with its usage report off, Ray asks the addresses of three cloud providers over
        # HTTP where it runs. It asks a proxy instead that is not there.
        "http_proxy": "http://127.0.0.1:9",
        "no_proxy": "127.0.0.1,localhost,::1",
    }


def local_superlink_ports() -> dict[str, str]:
    """Return the environment of a local SuperLink of one's own: two ports that are free now."""
    return local_superlink_environment(*free_ports(2))


def free_ports(count: int) -> list[int]:
    """Return ports of this machine that nobody listens at, and that the system gives to nobody.

    They lie outside the system's ephemeral ports where it leaves any: of those, a connection of
    another process may take one before the caller does.
    """
    first, last = map(int, _EPHEMERAL_PORTS.read_text().split())
    usual = range(_FIRST_PORT, 2**16)
    candidates = [port for port in usual if not first <= port <= last] or usual
    ports: list[int] = []
    for port in secrets.SystemRandom().sample(candidates, len(candidates)):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            ports.append(port)
        if len(ports) == count:
            return ports
    raise OSError(
        f"fewer than {count} ports from {_FIRST_PORT} on are free; end what listens there"
    )


def last_status(environment: Mapping[str, str]) -> str:
    """Return how the last run ended; :data:`COMPLETED` only if the server app returned."""
    listing = flwr(environment, "list", "--limit", "1", "--format", "json")
    return str(json.loads(listing.stdout)["runs"][0]["status"])


def end_processes(variable: str) -> None:
    """End the groups of all processes that have ``NAME=value`` in their environment."""
    while groups := groups_with(variable):
        for group in groups:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
        time.sleep(0.1)


def groups_with(variable: str) -> set[int]:
    """Return the process groups in which one has ``NAME=value`` in its environment.

    Not the processes alone: some of Ray's overwrite their environment with their title.
    """
    groups = set()
    for file in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):  # it has ended, or belongs to another user
            if variable.encode() in file.read_bytes().split(b"\0"):
                groups.add(os.getpgid(int(file.parent.name)))
    return groups
