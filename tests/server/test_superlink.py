"""Other machines reach what is for sites, and nothing else of the coordinator's server."""

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from server.superlink import ForSitesOnly

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
