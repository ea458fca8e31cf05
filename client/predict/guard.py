"""What stands before a server of images: who may ask, by which address, and what a browser may do.

A page elsewhere must not reach it through the user's browser: the address holds a secret token, and
a request must name this server as its host, or a name that was bent to this machine (DNS
rebinding) would do.
"""

import secrets
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADERS = {
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}
"""What every answer says beside its Content-Security-Policy: nothing is kept or passed on."""

_MISDIRECTED, _NOT_FOUND = 421, 404


def new_token() -> str:
    """Return a token that nobody guesses: 192 random bits for an address."""
    return secrets.token_urlsafe(24)


class Guard:
    """Lets through what names this server and its token; all else gets 421 or 404, and no more.

    Parameters
    ----------
    app : what answers.
    hosts : what the header ``Host`` may be.
    token : the first part of every path.
    policy : the Content-Security-Policy of every answer.
    """

    def __init__(self, app: "ASGIApp", hosts: Iterable[str], token: str, policy: str) -> None:
        self._app, self._token = app, token.encode()
        self._hosts = frozenset(host.encode() for host in hosts)
        headers = {**HEADERS, "content-security-policy": policy}
        self._headers = [(name.encode(), value.encode()) for name, value in headers.items()]

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Answer a request, or refuse it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._answer(scope, receive, self._with_headers(send))

    async def _answer(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        from starlette.responses import PlainTextResponse

        hosts = [value for name, value in scope["headers"] if name == b"host"]
        token = scope["path"].encode().split(b"/")[1:2]
        if len(hosts) != 1 or hosts[0].lower() not in self._hosts:
            refusal = PlainTextResponse("this server has another name", _MISDIRECTED)
            await refusal(scope, receive, send)
        elif not secrets.compare_digest(b"".join(token), self._token):
            await PlainTextResponse("nothing is here", _NOT_FOUND)(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _with_headers(self, send: "Send") -> "Send":
        async def sent(message: "Message") -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *self._headers]
            await send(message)

        return sent
