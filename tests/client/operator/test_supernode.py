"""A node ends once its server's certificate is no longer valid, and not before."""

import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path

from client.operator.server_certificate import server_certificate
from client.operator.site_rules import Operator
from common.site_folder import AUTHORITY, FILE
from common.wire.certificates import days_left
from server.deployment.pki import make_server
from tests.tls import HOST, tls_server

_WATCH = """
import sys, pathlib
from client.operator.supernode import end_if_refused
end_if_refused(pathlib.Path(sys.argv[1]), 0.2)
"""


def test_a_node_ends_once_the_certificate_has_expired(tmp_path: Path) -> None:
    looked = threading.Semaphore(0)

    class Handler(BaseHTTPRequestHandler):
        def handle(self) -> None:
            looked.release()

    ended = tmp_path / "ended.crt", tmp_path / "ended.key"
    with tls_server(tmp_path, Handler) as context:
        make_server(*ended, (tmp_path / AUTHORITY, tmp_path / "ca.key"), [HOST], days=-1)
        operator = Operator.read(tmp_path / FILE)
        assert days_left(server_certificate(tmp_path, operator)) > 0
        assert looked.acquire(timeout=60)
        command = [sys.executable, "-c", _WATCH, str(tmp_path)]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as node:
            assert all(looked.acquire(timeout=60) for _ in range(2))
            assert node.poll() is None
            context.load_cert_chain(*ended)
            said = node.communicate(timeout=60)[1]
    assert node.returncode == 1
    assert "certificate has expired; this node ends, to start anew" in said
