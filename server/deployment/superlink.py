"""Flower's SuperLink, of which other machines reach only what sites need.

Flower serves three interfaces at one port: for sites, whose node keys it checks; for users who
start runs and register keys, whom it does not check without a separate account service; and for its
own processes. Anybody who could reach the second could run code here. So the second and the third
answer this machine only.
"""

import ipaddress
import os

from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from common.flower_inside import FOR_SITES, run_superlink
from common.logs import choose_form


class ForSitesOnly:
    """Refuses requests of other machines that are not for sites."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on a request, or refuse it."""
        # What is no request is the server's own start and stop.
        if scope["type"] == "lifespan" or _allowed(scope):
            await self._app(scope, receive, send)
        else:
            refusal = PlainTextResponse("only for the coordinator's own machine", 403)
            await refusal(scope, receive, send)


def _allowed(scope: Scope) -> bool:
    if scope["path"].startswith(FOR_SITES):
        return True
    client = scope.get("client")
    if client is None:
        return False
    address = ipaddress.ip_address(client[0])
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def main() -> None:
    """Run the command ``flower-superlink`` so guarded."""
    choose_form()
    # Else what a request says of where it comes from would stand for its socket's address.
    os.environ["FORWARDED_ALLOW_IPS"] = ""
    run_superlink([Middleware(ForSitesOnly)])


if __name__ == "__main__":
    main()
