"""Other machines reach what is for sites, and nothing else of the coordinator's server."""

import sqlite3
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from importlib import import_module

import pytest
import uvicorn
from flwr.supercore import sql_mixin
from flwr.superlink import extensions
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from server.deployment import superlink
from server.deployment.superlink import ForSitesOnly

PATHS = ["/v1/fleet/pull-messages", "/v1/control/start-run", "/v1/runtime/push-object", "/docs"]


def ask(machine: str, path: str, **headers: str) -> int:
    routes = [Route("/{path:path}", lambda request: PlainTextResponse("answered"))]
    app = Starlette(routes=routes, middleware=[Middleware(ForSitesOnly)])
    return TestClient(app, client=(machine, 4711)).get(path, headers=headers).status_code


@pytest.mark.parametrize("machine", ["127.0.0.1", "::1", "::ffff:127.0.0.1"])
@pytest.mark.parametrize("path", PATHS)
def test_the_coordinators_own_machine_reaches_all(machine, path):
    assert ask(machine, path) == 200


@pytest.mark.parametrize("machine", ["10.0.0.7", "fd00::7", "::ffff:10.0.0.7"])
def test_others_reach_what_is_for_sites_only(machine):
    assert [ask(machine, path) for path in PATHS] == [200, 403, 403, 403]
    assert ask(machine, "/v1/control/start-run", **{"X-Forwarded-For": "127.0.0.1"}) == 403
    for path in ("/v1/fleet/../control/start-run", "//v1/fleet/x", "/v1/fleet"):
        assert ask(machine, path) == 403


@contextmanager
def served() -> Iterator[str]:
    """Serve as Flower does, at a port of this machine; yield the address."""

    async def who(request: Request) -> PlainTextResponse:
        return PlainTextResponse(request.client.host)

    app = Starlette(
        routes=[Route("/{path:path}", who)], middleware=list(extensions.get_middleware())
    )
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", ws="none"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


@pytest.mark.parametrize("trusted", [None, "*"])
def test_only_the_sockets_address_counts(monkeypatch, trusted):
    """Else a header would close the server to its own machine, or open it to all others."""
    monkeypatch.setattr(extensions, "get_middleware", extensions.get_middleware)
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", trusted or "127.0.0.1")
    command = import_module("flwr.superlink.cli.flower_superlink")
    monkeypatch.setattr(command, "flower_superlink", lambda: None)
    superlink.main()
    with served() as address:
        headers = {"X-Forwarded-For": "10.0.0.7", "X-Forwarded-Proto": "https"}
        request = urllib.request.Request(f"{address}/v1/control/start-run", headers=headers)
        with urllib.request.urlopen(request) as answer:
            assert (answer.status, answer.read()) == (200, b"127.0.0.1")


def test_requests_wait_for_the_database_longer_than_flower_lets_them(monkeypatch):
    """Flower's 5 s pass on a busy machine, and a request that fails ends the run."""
    monkeypatch.setattr(extensions, "get_middleware", extensions.get_middleware)
    monkeypatch.setattr(sql_mixin, "SQLITE_PRAGMAS", sql_mixin.SQLITE_PRAGMAS)
    command = import_module("flwr.superlink.cli.flower_superlink")
    monkeypatch.setattr(command, "flower_superlink", lambda: None)
    superlink.main()
    with closing(sqlite3.connect(":memory:")) as connection:
        sql_mixin._set_sqlite_pragmas(connection, None)
        [[wait]] = connection.execute("PRAGMA busy_timeout")
    assert wait >= 60_000
