"""Text from outside: which names may be used, and how anything is put on a line.

Names of sites and hosts become folders, rows of tables, lines of files and arguments of commands;
file names, cells of tables and words of a peer are printed. What none of these can hold is refused
where a name comes in, and escaped where a text goes out.
"""

import ipaddress
import re
import unicodedata
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Annotated

from pydantic import AfterValidator, ValidationError

NAME_RULE = "use letters, digits, spaces and _.,'&+()-"
"""What to do about a name that a site may not have."""

_NAME_LENGTH = 100
_MARKS = frozenset(" _.,'&+()-")
_OTHERS = re.compile(r"all sites|node \d+", re.ASCII)
"""What a report calls all sites together, and a node whose site is not known."""

_LABEL = re.compile(r"[a-z0-9]([\w-]{0,61}[a-z0-9])?", re.ASCII | re.IGNORECASE)
_HOST_LENGTH = 253


def is_site_name(text: str) -> bool:
    """Tell whether a site may have this name.

    It is at most 100 letters and digits of any script, spaces and ``_ . , ' & + ( ) -``, begins
    with a letter, a digit or ``_``, and does not end with a space.
    """
    allowed = all(_is_word(character) or character in _MARKS for character in text)
    return (
        0 < len(text) <= _NAME_LENGTH
        and allowed
        and (_is_word(text[0]) or text[0] == "_")
        and not text.endswith(" ")
        and not _OTHERS.fullmatch(text)
    )


def is_host(text: str) -> bool:
    """Tell whether this is the DNS name or the IP address of a machine; IPv6 without brackets."""
    try:
        # A zone is a name of the machine that says it, and may hold anything.
        return getattr(ipaddress.ip_address(text), "scope_id", None) is None
    except ValueError:
        labels = text.split(".")
    names = all(_LABEL.fullmatch(label) for label in labels)
    return names and len(text) <= _HOST_LENGTH and not labels[-1].isdigit()


def printable(text: str) -> str:
    r"""Return a text on one line, as it may be shown: what is not printable, as ``\n`` or ``\x1b``.

    So it forges no other lines, colours none, and none of it runs from right to left.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def suggestion(word: str, known: Iterable[str]) -> str:
    """Return "; did you mean '...'?" for the known word that is most like one; else nothing."""
    close = get_close_matches(word, list(known), n=1)
    return f"; did you mean '{close[0]}'?" if close else ""


def explain(error: ValidationError, sections: Mapping[str, Iterable[str]]) -> str:
    """Say in a clause what is wrong with the first wrong value of a file or of a run's settings.

    Parameters
    ----------
    sections : names of the keys that are known in each section; those of the whole under ``""``.
    """
    # A key that is misspelt says more than that it is missing.
    first = min(error.errors(), key=lambda each: each["type"] == "missing")
    where = [part for part in first["loc"] if isinstance(part, str) and part != "[key]"]
    key, value = ".".join(where), first["input"]
    if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        known = list(sections[where[0] if len(where) > 1 else ""])
        other = suggestion(where[-1], known) or f"; known are {', '.join(known)}"
        return f"unknown key '{key}' with value {value!r}{other}"
    if first["type"] == "missing":
        return f"the key '{key}' is missing; add it"
    reason = str(first["msg"]).removeprefix("Value error, ")
    return f"key '{key}' is {value!r}: {reason}" if where else reason


def matching(pattern: str, words: str) -> AfterValidator:
    """Return the rule that all of a text matches a pattern, which says in words what is wanted."""
    expression = re.compile(pattern)

    def check(text: str) -> str:
        if not expression.fullmatch(text):
            raise ValueError(words)
        return text

    return AfterValidator(check)


def _is_word(character: str) -> bool:
    return unicodedata.category(character)[0] in "LMN"


def _site_name(text: str) -> str:
    if not is_site_name(text):
        raise ValueError(f"no name of a site; {NAME_RULE}")
    return text


def _host(text: str) -> str:
    if not is_host(text):
        raise ValueError("neither a host's name nor an address")
    return text


SiteName = Annotated[str, AfterValidator(_site_name)]
Host = Annotated[str, AfterValidator(_host)]
