"""How far a hospital's clock is off: the server refuses nodes whose clock is wrong."""

import ssl
from contextlib import closing
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.client import HTTPSConnection
from pathlib import Path

from client.operator.server_certificate import address
from client.operator.site_rules import Operator
from common.errors import FedDermError
from common.site_folder import AUTHORITY

MOST_SECONDS = 5.0
"""Flower takes no signature of a later time than that; of an earlier one, up to 5 minutes."""

_PATIENCE = 10.0


def seconds_ahead(folder: Path, operator: Operator) -> float:
    """Return how far this machine's clock is ahead of the server's.

    Raises
    ------
    OSError
        If the server cannot be asked.
    FedDermError
        If it does not tell its time.
    """
    host, port = address(operator)
    context = ssl.create_default_context(cafile=str(folder / AUTHORITY))
    with closing(HTTPSConnection(host, port, timeout=_PATIENCE, context=context)) as connection:
        connection.request("GET", "/")
        date = connection.getresponse().headers["Date"]
    if date is None:
        raise FedDermError("the server does not tell its time; is it a SuperLink?")
    # The server tells whole seconds.
    return (datetime.now(UTC) - parsedate_to_datetime(date)).total_seconds() - 0.5


def in_words(ahead: float) -> str:
    """Say how far a clock is off, and what to do if that is too much."""
    says = f"{abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} the server's"
    return says if abs(ahead) < MOST_SECONDS else f"{says}; synchronise it, by NTP for instance"


def warning(folder: Path, operator: Operator) -> str | None:
    """Return a warning where this machine's clock is wrong; None where that cannot be known."""
    try:
        ahead = seconds_ahead(folder, operator)
    except (OSError, FedDermError):
        return None  # the node says itself that it does not reach the server
    if abs(ahead) < MOST_SECONDS:
        return None
    return f"this machine's clock, for which the server refuses the node, is {in_words(ahead)}"
