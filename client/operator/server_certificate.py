"""The certificate that the coordinator's server shows, which ``ca.crt`` must vouch for."""

import socket
import ssl
from pathlib import Path

from client.operator.site_rules import Operator
from common.site_folder import AUTHORITY

_PATIENCE = 10.0


def address(operator: Operator) -> tuple[str, int]:
    """Return the host and the port of the coordinator."""
    host, _, port = operator.superlink.rpartition(":")
    return host.strip("[]"), int(port)


def server_certificate(folder: Path, operator: Operator) -> bytes:
    """Return the server's certificate, in DER.

    Raises
    ------
    OSError
        If the server cannot be reached; ``ssl.SSLCertVerificationError`` if its certificate is not
        valid.
    """
    host, port = address(operator)
    context = ssl.create_default_context(cafile=str(folder / AUTHORITY))
    with (
        socket.create_connection((host, port), _PATIENCE) as connection,
        context.wrap_socket(connection, server_hostname=host) as server,
    ):
        return server.getpeercert(binary_form=True) or b""
