"""What a SuperLink keeps of many messages: ``python -m simulations.bench.superlink_messages``.

A SuperLink with its database on disk, a server app that asks nodes round by round (``echo/``), and
nodes that answer with as many bytes. The nodes are threads of this process, without a process for
each message; all speak over the loopback address, without TLS. The last message ends it.
"""

import os
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from common.command_line import run as run_command
from common.errors import FedDermError
from common.flower_commands import COMPLETED, flwr, flwr_environment, run_config_toml
from common.flower_inside import identify_message
from simulations.bench.polls import DATABASE, LOG, cpu_seconds, memory, superlink
from simulations.runtimes.flower_run import last_status

_ECHO = Path(__file__).parent / "echo"
_POLL_SECONDS, _PATIENCE_SECONDS = 0.2, 600.0
_MB, _MANY_ROWS = 1e6, 30

app = typer.Typer(add_completion=False)


@dataclass
class _Nodes:
    """How many messages connected nodes have answered, and whether they shall stop.

    Attributes
    ----------
    log : the server's.
    connected : passed when all are.
    """

    log: Path
    connected: threading.Barrier
    answered: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    ended: threading.Event = field(default_factory=threading.Event)

    def answer(self, address: str) -> None:
        """Answer messages as one node."""
        from flwr.supernode.fleet_http_connection import http_request_response

        with http_request_response(address, insecure=True) as (_, receive, send, _, _, *objects):
            self.connected.wait()
            while not self.ended.wait(_POLL_SECONDS):
                if received := receive():
                    _answer(*received, send, *objects)
                    with self.lock:
                        self.answered += 1

    def _last_words(self) -> str:
        return self.log.read_text(errors="replace")[-500:]

    def wait_for(self, count: int) -> None:
        """Wait until so many messages are answered.

        Raises
        ------
        FedDermError
            If none is for long.
        """
        while self.answered < count:
            before, end = self.answered, time.monotonic() + _PATIENCE_SECONDS
            while self.answered == before:
                if time.monotonic() > end:
                    raise FedDermError(f"no answer after {before:,} messages: {self._last_words()}")
                time.sleep(_POLL_SECONDS)


def _answer(
    message: Any, tree: Any, send: Callable[..., Any], pull: Any, push: Any, confirm: Any
) -> None:
    """Fetch a message's content and send as much back, as a node and its client app do."""
    from flwr.app import ConfigRecord, Message, RecordDict
    from flwr.supercore.inflatable import inflatable_object as inflatable
    from flwr.supercore.inflatable import inflatable_utils as transfer

    run, name = message.metadata.run_id, message.metadata.message_id
    ids = [each.object_id for each in inflatable.iterate_object_tree(tree)]
    contents = transfer.pull_objects(ids, lambda each: pull(run, each))
    confirm(run, name)
    got: Any = transfer.inflate_object_from_contents(name, contents)
    own = os.urandom(len(got.content["values"]["x"]))
    reply = Message(RecordDict({"values": ConfigRecord({"x": own})}), reply_to=message)
    identify_message(reply, reply.object_id)
    wanted, session = send(reply, inflatable.get_object_tree(reply), 0.0)
    transfer.push_objects(
        inflatable.get_all_nested_objects(reply),
        lambda each, content: push(run, session, each, content),
        object_ids_to_push=wanted,
    )


@contextmanager
def _connected(address: str, count: int, log: Path) -> Iterator[_Nodes]:
    nodes = _Nodes(log, threading.Barrier(count + 1, timeout=_PATIENCE_SECONDS))
    threads = [threading.Thread(target=nodes.answer, args=(address,)) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        nodes.connected.wait()
        yield nodes
    finally:
        nodes.ended.set()
        for thread in threads:
            thread.join()


def _environment(folder: Path, address: str) -> Mapping[str, str]:
    """Return the environment of Flower's commands, which find the server by a file there."""
    home = folder / "user"
    home.mkdir()
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "it"\n\n[superlink.it]\naddress = "{address}"\ninsecure = true\n'
    )
    return flwr_environment(home)


def _start(environment: Mapping[str, str], nodes: int, rounds: int, size: int) -> None:
    file = Path(environment["FLWR_HOME"]) / "run.toml"
    file.write_text(run_config_toml({"nodes": nodes, "rounds": rounds, "bytes": size}))
    started = flwr(environment, "run", str(_ECHO), "--run-config", str(file))
    if started.returncode:
        raise FedDermError(f"no run was started:\n{started.stdout[-2000:]}")


def _wait_for_end(environment: Mapping[str, str]) -> None:
    while not (status := last_status(environment)).startswith("finished"):
        time.sleep(_POLL_SECONDS)
    if status != COMPLETED:
        raise FedDermError(f"the run ended with the status {status}")


def _state(folder: Path, process: int) -> str:
    """Describe the database's files, tables that have grown, and the server's memory."""
    file = folder / DATABASE
    log = file.with_name(f"{DATABASE}-wal")
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as database:
        names = database.execute("select name from sqlite_master where type = 'table'").fetchall()
        rows = {n: database.execute(f'select count(*) from "{n}"').fetchone()[0] for (n,) in names}
        [[free]] = database.execute("pragma freelist_count").fetchall()
        [[page]] = database.execute("pragma page_size").fetchall()
    large = [f"{name} {count:,}" for name, count in rows.items() if count >= _MANY_ROWS]
    return (
        f"database {file.stat().st_size / _MB:.2f} MB, {free * page / _MB:.2f} MB of it free, "
        f"write-ahead log {log.stat().st_size / _MB:.2f} MB, server {memory(process):.0f} MB, "
        f"rows: {', '.join(large) or 'few'}"
    )


@app.command()
def main(
    marks: Annotated[
        str, typer.Option(help="Messages after which to look.")
    ] = "100,1000,3000,10000",
    small: Annotated[int, typer.Option(help="Bytes of such a message and its answer.")] = 1000,
    large: Annotated[int, typer.Option(help="Messages of 1 MB after them.")] = 300,
    nodes: Annotated[int, typer.Option(help="Connected nodes.")] = 4,
) -> None:
    """Print a line at each mark, and after each of the two runs has ended."""
    looks = [int(mark) for mark in marks.split(",")]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with (
            superlink(folder) as (process, address),
            _connected(address, nodes, folder / LOG) as answering,
        ):
            environment = _environment(folder, address)
            typer.echo(f"no message: {_state(folder, process)}")
            for size, stages in ((small, looks), (1_000_000, [large])):
                _start(environment, nodes, stages[-1] // nodes, size)
                done, first = 0, answering.answered
                for count in stages:
                    spent, begun = cpu_seconds(process), time.monotonic()
                    answering.wait_for(first + count)
                    each = (cpu_seconds(process) - spent) / (count - done)
                    took = (time.monotonic() - begun) / (count - done)
                    done = count
                    typer.echo(
                        f"{count:,} messages of {size:,} bytes: {each * 1e3:.0f} ms of the "
                        f"server's CPU and {took * 1e3:.0f} ms by the clock each; "
                        f"{_state(folder, process)}"
                    )
                _wait_for_end(environment)
                typer.echo(f"that run has ended: {_state(folder, process)}")


if __name__ == "__main__":
    run_command(app)
