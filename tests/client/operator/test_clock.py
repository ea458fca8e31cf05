"""A hospital whose clock is wrong reads so before the server refuses its node."""

import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from client.operator import clock
from client.operator.clock import in_words, seconds_ahead, warning
from client.operator.site_rules import Operator
from common.site_folder import AUTHORITY, FILE, first_file
from server.deployment.pki import make_authority, make_server

HOST = "127.0.0.1"


@contextmanager
def server_that_is(behind: float, folder: Path) -> Iterator[Operator]:
    """Serve with a clock that is behind; yield the file of a hospital in ``folder``."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(403)
            self.end_headers()

        def date_time_string(self, timestamp: float | None = None) -> str:
            return super().date_time_string(int(time.time() - behind))

        def log_message(self, *_: object) -> None:
            pass

    authority = folder / AUTHORITY, folder / "ca.key"
    certificate = folder / "server.crt", folder / "server.key"
    make_authority(*authority)
    make_server(*certificate, authority, [HOST])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    with HTTPServer((HOST, 0), Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        (folder / FILE).write_text(first_file("north", f"{HOST}:{server.server_port}"))
        yield Operator.read(folder / FILE)
        server.shutdown()


@pytest.mark.parametrize(("behind", "way"), [(3600, "ahead of"), (-3600, "behind")])
def test_a_wrong_clock_is_said_with_what_to_do(tmp_path, behind, way):
    with server_that_is(behind, tmp_path) as operator:
        assert seconds_ahead(tmp_path, operator) == pytest.approx(behind, abs=60)
        said = warning(tmp_path, operator)
    assert said is not None
    assert f"{way} the server's; synchronise it" in said
    # Nor is a server that is gone taken for one whose clock is wrong.
    assert warning(tmp_path, operator) is None


def test_a_clock_that_is_right_is_no_news(tmp_path, monkeypatch):
    monkeypatch.setattr(clock, "MOST_SECONDS", 600.0)  # a busy machine may be long about it
    with server_that_is(0, tmp_path) as operator:
        assert warning(tmp_path, operator) is None
    assert in_words(-0.4) == "0 s behind the server's"
