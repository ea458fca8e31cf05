"""How a server answers the page that it serves: an image a request.

An image is the raw body of one request. It stays in memory, is answered, and is gone: there is no
form with several parts, which a server would keep in files.
"""

import asyncio
import logging
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import count
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, unquote

from client.predict.guard import Guard
from client.predict.images import Answered, answered
from client.predict.page import fragments, policy, script, whole_page
from client.predict.shown import Answerer, ImageFile, Shown
from common.answers.answer import Unreadable
from common.data.metadata import BLOCKS, About
from common.data.patients import stated
from common.data.pictures import ENDINGS
from common.errors import ConfigError, described

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp

LARGEST = 30_000_000
"""Most bytes of an image that is sent."""

AT_ONCE = 4
"""Images that a page sends at a time; the model answers one after the other."""

SECONDS = 120.0
"""How long an image may take, from its first byte to its answer."""

NAME_HEADER = "x-file-name"
"""Has the file's name, percent-encoded. No page elsewhere can set it without being asked about."""

PATIENT_HEADER = "x-patient"
"""Has what is known of the patient, as a query: ``age=45&sex=female&localization=back``."""

_TITLES = {"age": "Age in years", "sex": "Sex", "localization": "Place"}

_LONGEST_NAME = 400
_TOO_LARGE, _TOO_SLOW, _BAD_REQUEST, _FAILED = 413, 408, 400, 500

_log = logging.getLogger(__name__)


class Answers:
    """Answers the requests of a page, one image each.

    Parameters
    ----------
    answerer : the model; one thread alone asks it, so the server answers others meanwhile.
    largest : most bytes of an image.
    seconds : how long an image may take.
    """

    def __init__(
        self, answerer: Answerer, largest: int = LARGEST, seconds: float = SECONDS
    ) -> None:
        self._answerer, self._largest, self._seconds = answerer, largest, seconds
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._numbers = count(1)

    def close(self) -> None:
        """End: what waits is dropped."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def app(self, hosts: list[str], token: str) -> "ASGIApp":
        """Return what serves the page and its answers.

        Parameters
        ----------
        hosts : what the header ``Host`` may be.
        token : the first part of every path.
        """
        from starlette.applications import Starlette
        from starlette.routing import Route

        routes = [
            Route(f"/{token}/", self._page, methods=["GET"]),
            Route(f"/{token}/answer", self._answer, methods=["POST"]),
        ]
        allowed = f"{_policy()}; frame-ancestors 'none'"
        return Guard(Starlette(routes=routes), hosts, token, allowed)

    async def _page(self, _: "Request") -> "Response":
        from starlette.responses import HTMLResponse

        return HTMLResponse(_served_page(self._answerer, self._largest))

    async def _answer(self, request: "Request") -> "Response":
        from starlette.requests import ClientDisconnect

        name = unquote(request.headers.get(NAME_HEADER, ""), errors="replace")[:_LONGEST_NAME]
        if not name:
            return self._unread("", "a request without the name of a file", _BAD_REQUEST)
        try:
            async with asyncio.timeout(self._seconds):
                data = await self._received(request)
                if data is None:
                    limit = f"{self._largest / 1e6:g} MB"
                    return self._unread(name, f"larger than {limit}; save it smaller", _TOO_LARGE)
                patient = _patient(request.headers.get(PATIENT_HEADER, ""))
                return await self._answered(ImageFile(name, data, patient))
        except ConfigError as error:
            return self._unread(name, str(error), _BAD_REQUEST)
        except ClientDisconnect:  # nobody reads this
            return self._unread(name, "not received", _BAD_REQUEST)
        except TimeoutError:
            return self._unread(name, f"no answer within {self._seconds:g} s", _TOO_SLOW)

    async def _received(self, request: "Request") -> bytes | None:
        """Return the body; None where it is too large, of which no more is kept than is allowed."""
        parts: list[bytes] = []
        size = 0
        async for part in request.stream():
            size += len(part)
            if size <= self._largest:
                parts.append(part)
            else:  # read on, and forget: a browser that cannot send on sees no answer
                parts.clear()
        return b"".join(parts) if size <= self._largest else None

    async def _answered(self, file: ImageFile) -> "Response":
        number = next(self._numbers)
        loop = asyncio.get_running_loop()
        try:
            made = await loop.run_in_executor(self._thread, self._made, file, number)
        except Exception as error:  # whatever fails in a model, the next image is answered
            _log.exception("the model failed")
            return self._unread(file.name, f"the model failed ({described(error)})", _FAILED)
        return _html(made)

    def _made(self, file: ImageFile, number: int) -> str:
        (found,) = answered(self._answerer, [file], evidence=True)
        return fragments(found, number).joined()

    def _unread(self, name: str, error: str, status: int) -> "Response":
        found = Answered(Shown(Unreadable(name, error)), b"")
        return _html(fragments(found, next(self._numbers)).joined(), status)


def _patient(header: str) -> About:
    """Read what is known of a patient.

    Raises
    ------
    ConfigError
        If it is none of what can be known.
    """
    try:
        return stated(**dict(parse_qsl(header, max_num_fields=len(BLOCKS))))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"of a patient {', '.join(BLOCKS)} can be known, not this") from error


def _fields(columns: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return what a field of each column may hold; nothing where it is no list."""
    return {c: () if c == "age" else BLOCKS[c][:-1] for c in columns}


def _html(content: str, status: int = 200) -> "Response":
    from starlette.responses import HTMLResponse

    return HTMLResponse(content, status)


@cache
def _script() -> str:
    return script("drop.js.j2", "serve.js.j2")


def _policy() -> str:
    return policy(_script(), "'self'")


def _served_page(answerer: Answerer, largest: int) -> str:
    unread = Answered(Shown(Unreadable("", "")), b"")
    return whole_page(
        "serve.html.j2",
        about=answerer.about,
        policy=_policy(),
        script=_script(),
        unread=fragments(unread, 0).joined(),
        endings=",".join(ENDINGS),
        largest=largest,
        at_once=AT_ONCE,
        fields=_fields(answerer.about.asked),
        titles=_TITLES,
    )
