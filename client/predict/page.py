"""Answers as one page of HTML that needs nothing else, an image a card."""

import base64
import hashlib
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Self

from client.predict import words
from client.predict.images import Answered
from client.predict.picture import Picture, small_picture
from client.predict.shown import About, Shown
from common.answers.answer import Answer, Unreadable
from common.errors import DataError
from common.storage.whole_files import write_atomically
from common.templates import templates
from common.text import printable

if TYPE_CHECKING:
    from jinja2 import Environment

TITLE = "What the model says"

_CARDS = "<!-- the cards -->"
_CHUNK = 1 << 20


class Fragments(NamedTuple):
    """The HTML of one image: its row of the overview, and its card."""

    row: str
    card: str

    def joined(self) -> str:
        """Return the card, and before it the row in a template."""
        return f"<template>{self.row}</template>{self.card}"


def fragments(answered: Answered, number: int) -> Fragments:
    """Return the HTML of one image; ``number`` makes its ids unique in a page."""
    shown, data = answered
    picture = None if isinstance(shown.answer, Unreadable) else small_picture(data)
    return drawn(shown, number, picture)


def drawn(shown: Shown, number: int, picture: Picture | None) -> Fragments:
    """Return the HTML of one image with its small picture, as :func:`fragments` does."""
    evidence = shown.evidence and shown.evidence.png
    return Fragments(
        _rendered("row.html.j2", shown=shown, number=number),
        _rendered(
            "card.html.j2",
            shown=shown,
            number=number,
            picture=picture,
            uri=picture and _uri("jpeg", picture.jpeg),
            evidence=evidence and _uri("png", evidence),
        ),
    )


class Page:
    """A page that grows by an image at a time and becomes a file when it is left without error.

    The cards wait in a file without a name, so any number of images needs little memory.

    Parameters
    ----------
    out : the file to write.
    about : what all answers share.

    Raises
    ------
    DataError
        If nothing can be written in its folder.
    """

    def __init__(self, out: Path, about: About) -> None:
        self._out, self._about = out, about
        self._rows: list[str] = []
        self._ask, self._maps = 0, False
        try:
            self._cards = tempfile.TemporaryFile(dir=out.parent)  # noqa: SIM115 - closed at exit
        except OSError as error:
            why = error.strerror
            raise DataError(f"{out} cannot be written ({why}); name another file") from error

    def __enter__(self) -> Self:
        return self

    def add(self, answered: Answered) -> None:
        """Add one image."""
        answer, evidence = answered.shown.answer, answered.shown.evidence
        made = fragments(answered, len(self._rows) + 1)
        self._rows.append(made.row)
        self._cards.write(made.card.encode())
        self._ask += asks(answer)
        self._maps |= evidence is not None and evidence.png is not None

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        with self._cards:
            if kind is None:
                write_atomically(self._out, self._chunks())

    def _chunks(self) -> Iterator[bytes]:
        before, _, after = whole_page(
            "page.html.j2",
            about=self._about,
            rows="".join(self._rows),
            n_images=len(self._rows),
            n_ask=self._ask,
            has_maps=self._maps,
            cards=_CARDS,
            policy=policy(),
        ).partition(_CARDS)
        yield before.encode()
        self._cards.seek(0)
        while chunk := self._cards.read(_CHUNK):
            yield chunk
        yield after.encode()


def asks(answer: Answer | Unreadable) -> bool:
    """Tell whether a person must look at an image."""
    return isinstance(answer, Unreadable) or bool(answer.refer)


def whole_page(template: str, about: About, **values: object) -> str:
    """Return a page by one of this folder's templates.

    Parameters
    ----------
    values : what the template shows beside what all pages have.
    """
    return _rendered(template, about=about, title=TITLE, style=style(), rules=words.RULES, **values)


def style() -> str:
    """Return the style sheet of all pages, which stand in their heads."""
    return _rendered("page.css.j2")


def script(*names: str) -> str:
    """Return scripts of this folder as one."""
    return "".join((Path(__file__).parent / name).read_text(encoding="utf-8") for name in names)


def policy(script: str = "", connect: str = "'none'", also: str = "") -> str:
    """Return the Content-Security-Policy of a page: it loads nothing but what it holds.

    Parameters
    ----------
    script : the one script that it runs; "" for none.
    connect : whom the script may call.
    also : what else of scripts is allowed.
    """
    allowed = f"{_source(script)} {also}".rstrip() if script else "'none'"
    return (
        f"default-src 'none'; img-src data:; style-src {_source(style())}; "
        f"script-src {allowed}; connect-src {connect}; base-uri 'none'; form-action 'none'"
    )


def _source(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _uri(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _unbroken(value: object) -> object:
    """Keep a number and its per cent on one line; what is HTML already stays as it is."""
    return value.replace(" %", "\u00a0%") if type(value) is str else value


def _rendered(template: str, **values: object) -> str:
    return _environment().get_template(template).render(values)


@cache
def _environment() -> "Environment":
    environment = templates(Path(__file__).parent)
    environment.finalize = _unbroken
    environment.filters.update(printable=printable, capital=words.capital, target=words.target)
    said = (
        *(words.percent, words.named, words.malignancy, words.malignant_share),
        *(words.stands_out, words.following, words.target, words.flag, words.operating_point),
        words.common_threshold,
        *(
            words.promise,
            words.diagnoses,
            words.distance,
            words.patient,
            words.without,
            words.changed,
        ),
    )
    environment.globals.update({each.__name__: each for each in said})
    environment.globals.update(not_a_device=words.NOT_A_DEVICE)
    return environment
