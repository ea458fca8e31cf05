"""A hospital's folder, and a server with TLS that its node believes."""

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

from common.site_folder import AUTHORITY, FILE, first_file
from server.deployment.pki import make_authority, make_server

HOST = "127.0.0.1"


@contextmanager
def tls_server(folder: Path, handler: type[BaseHTTPRequestHandler]) -> Iterator[ssl.SSLContext]:
    """Serve with a certificate of ``folder``'s authority, and name the server in its site file.

    Yields
    ------
    The server's TLS context: a certificate that is loaded into it is shown from then on.
    """
    authority = folder / AUTHORITY, folder / "ca.key"
    certificate = folder / "server.crt", folder / "server.key"
    make_authority(*authority)
    make_server(*certificate, authority, [HOST])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    with HTTPServer((HOST, 0), handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        (folder / FILE).write_text(first_file("north", f"{HOST}:{server.server_port}"))
        yield context
        server.shutdown()
