"""A node ends once its server's certificate is no longer valid, and not before."""

import ssl
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

from client.operator.server_certificate import server_certificate
from client.operator.site_rules import Operator
from common.site_folder import AUTHORITY, FILE, first_file
from common.wire.certificates import days_left
from server.deployment.pki import make_authority, make_server

_WATCH = """
import sys, pathlib
from client.operator.supernode import end_if_refused
end_if_refused(pathlib.Path(sys.argv[1]), 0.2)
"""


def test_a_node_ends_once_the_certificate_has_expired(tmp_path: Path) -> None:
    authority = tmp_path / AUTHORITY, tmp_path / "ca.key"
    make_authority(*authority)
    hosts = ["127.0.0.1"]
    make_server(tmp_path / "valid.crt", tmp_path / "valid.key", authority, hosts)
    make_server(tmp_path / "ended.crt", tmp_path / "ended.key", authority, hosts, days=-1)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "valid.crt", tmp_path / "valid.key")
    looked = threading.Semaphore(0)

    class Handler(BaseHTTPRequestHandler):
        def handle(self) -> None:
            looked.release()

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        (tmp_path / FILE).write_text(first_file("north", f"127.0.0.1:{server.server_port}"))
        operator = Operator.read(tmp_path / FILE)
        assert days_left(server_certificate(tmp_path, operator)) > 0
        assert looked.acquire(timeout=60)
        command = [sys.executable, "-c", _WATCH, str(tmp_path)]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as node:
            assert all(looked.acquire(timeout=60) for _ in range(2))
            assert node.poll() is None
            context.load_cert_chain(tmp_path / "ended.crt", tmp_path / "ended.key")
            said = node.communicate(timeout=60)[1]
        server.shutdown()
    assert node.returncode == 1
    assert "certificate has expired; this node ends, to start anew" in said
