"""A SuperLink whose connected nodes all poll: ``python -m simulations.bench.polls``.

The nodes are connections of this process at the loopback address, without TLS. They poll one after
the other as fast as they are answered, as often as is said, so the load ends by itself.
"""

import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from common.command_line import run as run_command
from common.flower_commands import flwr_environment
from simulations.bench.measurement import timed
from simulations.runtimes.flower_run import free_ports

_THREADS = 4
_START_SECONDS = 300.0
DATABASE, LOG = "links.db", "log"

app = typer.Typer(add_completion=False)


@contextmanager
def superlink(folder: Path) -> Iterator[tuple[int, str]]:
    """Run a SuperLink with a database in a folder; yield its process and its address."""
    [port] = free_ports(1)
    command = [sys.executable, "-P", "-m", "server.deployment.superlink", "--insecure"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--database", str(folder / DATABASE)]
    with (
        open(folder / LOG, "wb") as log,
        subprocess.Popen(
            command,
            env=flwr_environment(folder / "home"),
            stdout=log,
            stderr=log,
            start_new_session=True,
        ) as process,
    ):
        try:
            yield process.pid, f"127.0.0.1:{port}"
        finally:
            os.killpg(process.pid, signal.SIGKILL)


class _Node:
    """A connected node, as Flower's SuperNode is one, without its processes."""

    def __init__(self, address: str, stack: ExitStack) -> None:
        from flwr.common.constant import HEARTBEAT_MAX_INTERVAL
        from flwr.proto.fleet_pb2 import ActivateNodeRequest, RegisterNodeFleetRequest
        from flwr.proto.node_pb2 import Node
        from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
        from flwr.supercore.primitives.asymmetric import generate_key_pairs, public_key_to_bytes
        from flwr.supernode.fleet_http_client import FleetHttpClient
        from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

        keys = generate_key_pairs()
        public = public_key_to_bytes(keys[1])
        signing: list[Any] = [
            RuntimeVersionHttpInterceptor(component_name="SuperNode"),
            NodeAuthHttpInterceptor(*keys),
        ]
        client: Any = FleetHttpClient.from_server_address(address, True, None, interceptors=signing)
        self._client = stack.enter_context(client)
        _patiently(lambda: self._client.RegisterNode(RegisterNodeFleetRequest(public_key=public)))
        request = ActivateNodeRequest(public_key=public, heartbeat_interval=HEARTBEAT_MAX_INTERVAL)
        self._node = Node(node_id=self._client.ActivateNode(request).node_id)

    def poll(self) -> float:
        """Ask for messages, of which there are none; return the seconds."""
        from flwr.proto.fleet_pb2 import PullMessagesRequest

        request = PullMessagesRequest(node=self._node)
        return timed(lambda: self._client.PullMessages(request))[1]


def _patiently(ask: Any) -> None:
    """Ask until the server is there."""
    import httpx

    end = time.monotonic() + _START_SECONDS
    while True:
        try:
            ask()
        except httpx.TransportError:
            if time.monotonic() > end:
                raise
            time.sleep(0.5)
        else:
            return


def cpu_seconds(process: int) -> float:
    """Return the seconds of CPU that a process has taken."""
    fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory(process: int) -> float:
    """Return a process's resident memory in MB."""
    [found] = re.findall(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text())
    return int(found) / 1024


@app.command()
def main(
    nodes: Annotated[str, typer.Option(help="Numbers of connected nodes.")] = "10,100,1000",
    polls: Annotated[int, typer.Option(help="Polls of each node.")] = 3,
) -> None:
    """Print a line for each number of nodes, of which each is added to those before."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        process, address = stack.enter_context(superlink(Path(name)))
        connected: list[_Node] = []
        for count in map(int, nodes.split(",")):
            connected += [_Node(address, stack) for _ in range(count - len(connected))]
            before = cpu_seconds(process)
            with ThreadPoolExecutor(_THREADS) as pool:
                answered = list(pool.map(_Node.poll, connected * polls))
            spent = (cpu_seconds(process) - before) / len(answered)
            middle, late = statistics.median(answered), statistics.quantiles(answered, n=100)[-1]
            typer.echo(
                f"{count:6,} nodes: {spent * 1e3:6.2f} ms of the server's CPU a poll, answered in "
                f"{middle * 1e3:6.1f} ms, the slowest of 100 in {late * 1e3:6.1f} ms, "
                f"{memory(process):5.0f} MB"
            )


if __name__ == "__main__":
    run_command(app)
