"""Flower's inside is as this program needs it, and only one module leans on it."""

import ast
import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, NamedTuple
from unittest.mock import MagicMock

import httpx
import pytest
from flwr.app import Message, RecordDict
from flwr.common.constant import ErrorCode
from starlette.middleware import Middleware

from client.operator.cli import node_command
from client.operator.node_key import public_key
from common import flower_inside
from server.deployment.superlink import ForSitesOnly
from tests.sites import hospital_file

ROOT = Path(flower_inside.__file__).parents[1]
_BENCHMARKS = [
    ROOT / "simulations" / "bench" / name for name in ("polls.py", "superlink_messages.py")
]
"""Of Flower's own protocol, which nothing else uses."""

PUBLIC = {"flwr.app", "flwr.clientapp", "flwr.serverapp", "flwr.serverapp.strategy"}


class Relied(NamedTuple):
    """A name inside Flower, how it is called, and what here breaks without it."""

    name: str
    parameters: tuple[str, ...] | None
    use: str


_FINDS_APP = "flwr.supernode.runtime.run_clientapp:get_load_client_app_fn"
_MAKES_INVOKER = "flwr.supernode.fleet_http_connection:make_simple_http_retry_invoker"
_APP_FINDER = ("default_app_ref", "app_path", "multi_app")

RELIED = [
    Relied("flwr.supercore.task_identity:TaskIdentity._task_id", None, "identify_process"),
    Relied("flwr.supercore.run:Run.create_empty", ("run_id",), "empty_run"),
    Relied("flwr.supercore.constant:TASK_TYPE_TO_COMMAND", None, "task_commands"),
    Relied("flwr.supercore.constant:TaskType.CLIENT_APP", None, "task_commands"),
    Relied("flwr.supernode.cli.flwr_clientapp:flwr_clientapp", (), "client_command"),
    Relied(_FINDS_APP, _APP_FINDER, "answer_one_message"),
    Relied("flwr.supernode.cli.flower_supernode:flower_supernode", (), "run_supernode"),
    Relied("flwr.supernode.start_client_internal:pull_objects", None, "run_supernode"),
    Relied("flwr.supernode.fleet_http_connection:httpx.TransportError", None, "run_supernode"),
    Relied(_MAKES_INVOKER, (), "run_supernode"),
    Relied("flwr.supernode.start_client_internal:RunNotRunningException", None, "run_supernode"),
    Relied("flwr.supercore.error.http:BearerAuthenticationError", None, "answer_one_message"),
    Relied("flwr.supercore.error.http:http_error_translator", None, "answer_one_message"),
    Relied("flwr.superlink.extensions:get_middleware", (), "run_superlink"),
    Relied("flwr.superlink.cli.flower_superlink:flower_superlink", (), "run_superlink"),
    Relied("flwr.supercore.sql_mixin:SQLITE_PRAGMAS", None, "run_superlink"),
]


def broken(relied: Relied) -> str:
    """Return in one line how a version of Flower differs from what is needed; "" if it does not."""
    where = f"Flower {version('flwr')}: common.flower_inside.{relied.use} needs {relied.name}"
    try:
        found: Any = resolve_name(relied.name)
    except (ImportError, AttributeError) as error:
        return f"{where}, which is gone ({error})"
    if relied.parameters is None:
        return ""
    taken = tuple(inspect.signature(found).parameters)
    return "" if taken == relied.parameters else f"{where} with {relied.parameters}, it has {taken}"


@pytest.mark.parametrize("relied", RELIED, ids=lambda relied: relied.name)
def test_what_is_needed_is_there(relied):
    assert not (line := broken(relied)), line


@pytest.mark.parametrize(
    ("relied", "said"),
    [
        (Relied("flwr.supercore.run:Run.gone", None, "empty_run"), "which is gone"),
        (Relied("flwr.superwhat", None, "empty_run"), "which is gone"),
        (Relied("flwr.supercore.run:Run.create_empty", ("name",), "empty_run"), "it has ("),
    ],
)
def test_what_broke_is_one_line(relied, said):
    line = broken(relied)
    assert line.startswith(f"Flower {version('flwr')}: common.flower_inside.empty_run needs flwr.")
    assert said in line
    assert "\n" not in line


def test_codes_and_words_are_flowers():
    from flwr.cli import constant, local_superlink
    from flwr.supercore.error.base import ApiErrorCode
    from flwr.supercore.superexec import run_superexec
    from flwr.superlink.grid import InMemoryGrid

    assert flower_inside.is_simulation(object.__new__(InMemoryGrid))
    assert flower_inside.NODE_UNAVAILABLE == ErrorCode.NODE_UNAVAILABLE
    assert flower_inside.APP_RAISED == ErrorCode.CLIENT_APP_RAISED_EXCEPTION
    assert f"code: {int(ApiErrorCode.PUBLIC_KEY_ALREADY_IN_USE)}" == flower_inside.KEY_IS_KNOWN
    assert flower_inside.FAILED_START in inspect.getsource(local_superlink)
    for variable in flower_inside.local_superlink_environment(1, 2):
        assert variable in inspect.getsource(constant)
    (variable,) = flower_inside.SUPERNODE_ENVIRONMENT
    assert variable in inspect.getsource(run_superexec)


def test_flowers_commands_take_the_options(synthetic_folder, tmp_path):
    from flwr.superlink.cli.flower_superlink import _parse_args_run_superlink
    from flwr.supernode.cli.flower_supernode import _parse_args_run_supernode

    files = [tmp_path / name for name in ("ca", "certificate", "key", "database")]
    taken = _parse_args_run_superlink().parse_args(
        flower_inside.superlink_options("0.0.0.0", 9092, *files)
    )
    assert (taken.host, taken.port, taken.enable_supernode_auth) == ("0.0.0.0", 9092, True)
    assert (taken.database, taken.ssl_ca_certfile) == (str(files[3]), str(files[0]))
    file = hospital_file(synthetic_folder, tmp_path / "site")
    public_key(file.parent)
    command, _ = node_command(file.parent)
    taken = _parse_args_run_supernode().parse_args(command[4:])
    assert taken.superlink == "127.0.0.1:9092"
    assert str(file) in taken.node_config
    assert not taken.insecure


@pytest.fixture
def supernode(monkeypatch) -> tuple[Any, Any]:
    """Run a node's command that does nothing; return Flower's modules as they are for it."""
    node: Any = import_module("flwr.supernode.start_client_internal")
    connection: Any = import_module("flwr.supernode.fleet_http_connection")
    for module, name in ((node, "pull_objects"), (connection, "make_simple_http_retry_invoker")):
        monkeypatch.setattr(module, name, getattr(module, name))
    command = import_module("flwr.supernode.cli.flower_supernode")
    monkeypatch.setattr(command, "flower_supernode", lambda: None)
    flower_inside.run_supernode()
    return node, connection


def test_a_message_whose_run_ends_while_it_is_received_leaves_no_task(supernode):
    """Else the process that is to answer it waits for the rest."""
    node, _ = supernode

    def ended(*_: object) -> bytes:
        raise node.RunNotRunningException

    message, state, store = MagicMock(), MagicMock(), MagicMock()
    store.preregister.return_value = ["part"]
    received = {"receive": lambda: (message, MagicMock()), "pull_object": ended}
    others = dict.fromkeys(inspect.signature(node._pull_and_store_message).parameters)
    node._pull_and_store_message(**{**others, "state": state, "object_store": store, **received})
    state.finish_task.assert_called_once()
    store.delete.assert_called_once_with(message.metadata.message_id)


def _status(code: int) -> httpx.HTTPStatusError:
    request = httpx.Request("POST", "https://server")
    return httpx.HTTPStatusError(
        "", request=request, response=httpx.Response(code, request=request)
    )


@pytest.mark.parametrize(
    ("error", "given_up"),
    [
        (httpx.ConnectTimeout("_ssl.c:989: The handshake operation timed out"), False),
        (httpx.ConnectError("[SSL: UNEXPECTED_EOF_WHILE_READING] EOF occurred"), False),
        (httpx.ReadTimeout("The read operation timed out"), False),
        (httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] certificate has expired"), True),
        (_status(httpx.codes.NOT_FOUND), True),
        (_status(httpx.codes.BAD_GATEWAY), False),
    ],
    ids=repr,
)
def test_a_server_is_given_up_for_its_certificate_and_not_for_being_slow(
    supernode, error, given_up
):
    _, connection = supernode
    assert connection.make_simple_http_retry_invoker().should_giveup(error) == given_up


def test_a_superlink_has_the_guard_outermost_and_sites_paths_where_it_lets_them(monkeypatch):
    from flwr.supercore import sql_mixin
    from flwr.superlink import extensions, main
    from flwr.superlink.routers.control import router as control
    from flwr.superlink.routers.fleet.router import router as fleet

    monkeypatch.setattr(extensions, "get_middleware", extensions.get_middleware)
    monkeypatch.setattr(sql_mixin, "SQLITE_PRAGMAS", sql_mixin.SQLITE_PRAGMAS)
    command = import_module("flwr.superlink.cli.flower_superlink")
    monkeypatch.setattr(command, "flower_superlink", lambda: None)
    flower_inside.run_superlink([Middleware(ForSitesOnly)])
    assert main._get_middleware()[0].cls is ForSitesOnly
    assert all(route.path.startswith(flower_inside.FOR_SITES) for route in fleet.routes)
    assert not any(route.path.startswith(flower_inside.FOR_SITES) for route in control.routes)


def test_a_message_gets_an_id_and_a_process_a_name():
    flower_inside.identify_process(run_id=7, node_id=3, task_id=1)
    message = Message(RecordDict(), 3, "query")
    flower_inside.identify_message(message, "first")
    assert message.metadata.message_id == "first"
    assert message.metadata.run_id == 7
    assert flower_inside.empty_run(7).run_id == 7
    names, of_client_app = flower_inside.task_commands()
    assert of_client_app in names


def test_strategies_keep_their_moments_where_the_coordinator_looks():
    from flwr.serverapp.strategy import FedAdam, FedAvg, FedAvgM

    line = f"Flower {version('flwr')}: server.strategies.aggregation needs"
    for strategy, names in ((FedAdam(), ("m_t", "v_t")), (FedAvgM(), ("momentum_vector",))):
        for name in ("current_arrays", *names):
            assert hasattr(strategy, name), f"{line} {type(strategy).__name__}.{name}"
    taken = tuple(inspect.signature(FedAvg.aggregate_train).parameters)
    assert taken == ("self", "server_round", "replies"), line


def _imported(file: Path) -> Iterator[str]:
    """Yield the modules that a file imports, those in a program that it holds as text, too."""
    text = file.read_text()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
    yield from re.findall(r"(?m)^from (flwr[\w.]*) import", text)


def test_no_other_module_leans_on_flowers_inside():
    """What a strategy's own class keeps is public by its package."""
    found = {
        f"{file.relative_to(ROOT)}: {name}"
        for room in ("client", "common", "server", "simulations")
        for file in (ROOT / room).rglob("*.py")
        if file not in (Path(flower_inside.__file__), *_BENCHMARKS)
        for name in _imported(file)
        if name.partition(".")[0] == "flwr" and name not in PUBLIC
    }
    assert not found
