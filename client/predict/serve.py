"""``fedderm serve``: the page of answers by drag and drop, on this machine alone."""

import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from typing import TYPE_CHECKING

from client.predict.guard import new_token
from client.predict.requests import Answers
from client.predict.shown import Answerer
from common.errors import ConfigError

if TYPE_CHECKING:
    from uvicorn import Server

LOOPBACK = "127.0.0.1"

_GRACE = 5
"""Seconds that answers have to end once the server is stopped."""


def serve(answerer: Answerer, host: str = LOOPBACK, port: int = 0) -> None:
    """Serve a model until SIGINT or SIGTERM; print the address, which is a secret.

    Parameters
    ----------
    host : address of this machine to listen at.
    port : 0 for any that is free.

    Raises
    ------
    ConfigError
        If the server cannot listen there.
    """
    import uvicorn

    token, answers = new_token(), Answers(answerer)
    with _listening(host, port) as listener:
        hosts = _hosts(host, listener)
        config = uvicorn.Config(
            answers.app(hosts, token),
            access_log=False,  # names of files may be names of patients
            log_level="warning",
            server_header=False,
            ws="none",
            timeout_graceful_shutdown=_GRACE,
        )
        server = uvicorn.Server(config)
        with _stopped_by_signals(server):
            if not ip_address(host).is_loopback:
                print("warning: images travel unencrypted on this network", file=sys.stderr)
            print(f"open http://{hosts[0]}/{token}/ in a browser; Ctrl-C stops", flush=True)
            server.run(sockets=[listener])
        answers.close()


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    try:
        address = ip_address(host)
        family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
        if address.is_unspecified:
            raise ConfigError(f"'{host}' is no address that a browser opens; name one of them")
        listener = socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"cannot listen at {host}:{port} ({why}); name others") from error
    except ValueError as error:
        raise ConfigError(f"'{host}' is no address; name one such as {LOOPBACK}") from error
    with listener:
        yield listener


def _hosts(host: str, listener: socket.socket) -> list[str]:
    """Return what browsers call this server, the address first."""
    address, port = ip_address(host), listener.getsockname()[1]
    names = [f"[{address}]" if address.version == 6 else str(address)]
    names += ["localhost"] if address.is_loopback else []
    return [f"{name}:{port}" for name in names]


@contextmanager
def _stopped_by_signals(server: "Server") -> Iterator[None]:
    """Let a stop end the server and no more, before it listens and once it has ended, too.

    While it runs it takes signals itself; it raises them again at its end.
    """

    def stop(*_: object) -> None:
        server.should_exit = True

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
