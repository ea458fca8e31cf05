"""All that leans on Flower's inside, which another version may change.

Flower promises what is in ``flwr.app``, ``flwr.clientapp`` and ``flwr.serverapp``. Whatever else
this program needs of it is here, and ``tests/common/test_flower_inside.py`` says in a line each
what a version lacks. Flower is imported where it is used: a site's process keeps parts of it out.
"""

import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flwr.app import Message
    from flwr.clientapp import ClientApp
    from flwr.serverapp import Grid
    from flwr.supercore.run import Run as Run
    from starlette.middleware import Middleware

NODE_UNAVAILABLE, APP_RAISED = 5, 2
"""Codes of errors: a node is not there; the client app raised an exception."""

FOR_SITES = "/v1/fleet/"
"""Begin of the paths that a SuperLink has for sites' nodes."""

KEY_IS_KNOWN = "code: 23"
"""What Flower says of a node's key that is registered already."""

TASK_STARTER = "flower-superexec"
"""The command with which a node starts the commands for tasks; it finds them by their names."""

FAILED_START = "Failed to start local SuperLink"
"""What Flower says where its SuperLink took longer than 15 s to start, as on a busy machine, or
ended at once, as where another process took its port first."""

_BUSY_MILLISECONDS = "120000"

_NOT_CALLED = {
    "flwr.supernode.cli.flower_supernode": ["flower_supernode"],
    "flwr.supercore.error.http": ["BearerAuthenticationError", "http_error_translator"],
}
"""Modules of Flower with what others import from them: a node's own, and of its servers."""


def identify_process(run_id: int, node_id: int, task_id: int) -> None:
    """Say who this process is, which Flower wants to know before a message is made."""
    from flwr.supercore.task_identity import TaskIdentity

    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = run_id, node_id, task_id


def identify_message(message: "Message", message_id: str) -> None:
    """Set a message's id, which is read-only, as Flower's own grids do."""
    message.metadata.__dict__["_message_id"] = message_id


def empty_run(run_id: int) -> "Run":
    """Return a run of which nothing but its number is known."""
    from flwr.supercore.run import Run as Run

    return Run.create_empty(run_id)


def task_commands() -> tuple[list[str], str]:
    """Return the names of the commands that a node starts for tasks, and that of client apps."""
    from flwr.supercore.constant import TASK_TYPE_TO_COMMAND, TaskType

    return list(TASK_TYPE_TO_COMMAND.values()), TASK_TYPE_TO_COMMAND[TaskType.CLIENT_APP]


def answer_one_message(app: Callable[[], "ClientApp"]) -> None:
    """Run Flower's command for a client app, but with ``app`` in place of the one that was sent.

    Parameters
    ----------
    app : imports and returns it, after what Flower does not need was kept out.
    """
    _skip_imports()
    command, process = client_command()
    own = app()

    def installed(**_: object) -> "Callable[..., ClientApp]":
        return lambda *_: own

    # Else Flower would run what the coordinator sends.
    assert hasattr(process, "get_load_client_app_fn"), "this version of Flower is not known"
    vars(process).update(get_load_client_app_fn=installed)
    command()


def client_command() -> tuple[Callable[[], None], ModuleType]:
    """Return Flower's command for a client app, and the module that finds the app for it."""
    from flwr.supernode.cli.flwr_clientapp import flwr_clientapp
    from flwr.supernode.runtime import run_clientapp

    return flwr_clientapp, run_clientapp


def _skip_imports() -> None:
    """Keep what Flower imports and does not call here from taking longer than many an answer.

    Its commands import each other, and what its servers do with errors, which is a web framework.
    """
    from starlette import status

    for name, contents in _NOT_CALLED.items():
        vars(empty := ModuleType(name)).update(dict.fromkeys(contents))
        sys.modules[name] = empty
    vars(web := ModuleType("fastapi")).update(status=status)
    sys.modules["fastapi"] = web


def run_superlink(middleware: "Sequence[Middleware]") -> None:
    """Run the command ``flower-superlink`` behind ``middleware``, the outermost first.

    Requests wait longer for the database than the 5 s after which Flower lets them fail: on a busy
    machine, or while a backup is made, that is too short, and a run would end.
    """
    from flwr.superlink import extensions
    from flwr.superlink.cli.flower_superlink import flower_superlink

    extensions.get_middleware = lambda: tuple(middleware)
    database: Any = import_module("flwr.supercore.sql_mixin")
    database.SQLITE_PRAGMAS = tuple(
        (name, _BUSY_MILLISECONDS if name == "busy_timeout" else value)
        for name, value in database.SQLITE_PRAGMAS
    )
    flower_superlink()


def superlink_options(
    host: str, port: int, authority: Path, certificate: Path, key: Path, database: Path
) -> list[str]:
    """Return the options of a SuperLink that serves over TLS and checks its nodes' keys."""
    return [
        *("--host", host, "--port", str(port)),
        *("--ssl-ca-certfile", str(authority)),
        *("--ssl-certfile", str(certificate), "--ssl-keyfile", str(key)),
        "--enable-supernode-auth",
        "--disable-runtime-dependency-installation",
        *("--database", str(database)),
    ]


def run_supernode() -> None:
    """Run the command ``flower-supernode``, which returns where it gives its server up.

    It does so for a certificate that is refused. Flower alone would do so for whatever goes wrong
    while TLS is agreed on, as where a server is slow for some seconds or is being started.

    Where a run ends while a node receives a message, Flower forgets the process that is to answer:
    it would wait for the rest for more than an hour. Where receiving fails, Flower ends it.
    """
    from flwr.supernode.cli.flower_supernode import flower_supernode

    connection: Any = import_module("flwr.supernode.fleet_http_connection")
    make, unreachable = connection.make_simple_http_retry_invoker, connection.httpx.TransportError

    def patient() -> Any:
        invoker = make()
        gives_up = invoker.should_giveup

        def refused(error: Exception) -> bool:
            away = isinstance(error, unreachable) and "certificate" not in str(error).lower()
            return not away and bool(gives_up(error))

        invoker.should_giveup = refused
        return invoker

    connection.make_simple_http_retry_invoker = patient
    node: Any = import_module("flwr.supernode.start_client_internal")
    pull, ended = node.pull_objects, node.RunNotRunningException

    def pull_or_fail(*arguments: object, **options: object) -> object:
        try:
            return pull(*arguments, **options)
        except ended as error:
            raise RuntimeError("its run has ended") from error

    node.pull_objects = pull_or_fail
    flower_supernode()


def supernode_options(
    superlink: str, authority: Path, key: Path, port: int, node_config: str
) -> list[str]:
    """Return the options of a site's node."""
    return [
        *("--superlink", superlink),
        *("--root-certificates", str(authority)),
        *("--auth-supernode-private-key", str(key)),
        *("--port", str(port)),
        *("--node-config", node_config),
    ]


SUPERNODE_ENVIRONMENT = {"FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.2"}
"""Lets a node look for messages more often than Flower's second."""


def local_superlink_environment(superlink: int, control: int) -> dict[str, str]:
    """Return the ports of the SuperLink that ``flwr run`` starts, as it reads them."""
    return {
        "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": str(superlink),
        "FLWR_LOCAL_CONTROL_API_PORT": str(control),
    }


def is_simulation(grid: "Grid") -> bool:
    """Tell whether a grid's nodes are those of ``flwr run`` in one process."""
    return type(grid).__name__ == "InMemoryGrid"  # to import it takes seconds


def is_local_superlink(command: Sequence[bytes]) -> bool:
    """Tell whether a process is that SuperLink, by the words of its command."""
    return b"--simulation" in command and any(b"superlink" in word for word in command)
