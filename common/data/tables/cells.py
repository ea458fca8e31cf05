"""Cells that people and programs write differently: ids, ages and what is missing."""

import math
import re
from typing import NamedTuple

from common.data.pictures import PICTURE_ENDINGS

_MISSING = frozenset(
    ("", "na", "n/a", "#n/a", "nan", "none", "null", "nil", "unknown", "missing", "-", "--", "?")
)
_LONGEST = max(map(len, _MISSING))
_SPREADSHEET = re.compile(r"-?\d([.,]\d+)?E\+\d+", re.IGNORECASE)
_UNIT = "years?( old)?|yrs?|y/?o|y|jahre?|j|ans?|años?|anni"
_AGE = re.compile(rf"(\d+)([.,]\d+)?(\s*(\+|({_UNIT})\.?))?", re.ASCII | re.IGNORECASE)
_OLDEST = 130


class Age(NamedTuple):
    """An age in years, None where there is none, and whether it was read loosely."""

    years: float | None
    loose: bool


def present(text: str) -> str:
    """Return a cell without blanks around it, "" where it says that it is missing."""
    text = text.strip()
    return "" if len(text) <= _LONGEST and text.lower() in _MISSING else text


def word(text: str) -> str:
    """Return a descriptive cell in lower case; "unknown" stays, other words for it go."""
    text = text.strip().lower()
    return text if text == "unknown" else present(text)


def without_ending(name: str) -> str:
    """Return a file's name without folders and without the ending of an image."""
    name = name.strip()
    if "/" in name or "\\" in name:
        name = name.replace("\\", "/").rpartition("/")[2]
    stem, dot, ending = name.rpartition(".")
    return stem.strip() if dot + ending.lower() in PICTURE_ENDINGS else name


def spreadsheet_number(text: str) -> bool:
    """Tell whether an id looks like ``1.23E+06``, as spreadsheets write long numbers."""
    return bool(_SPREADSHEET.fullmatch(text))


def age(text: str) -> Age:
    """Read an age in years: ``45``, ``45.0``, ``45,0`` or, loosely, ``85+`` or ``45 years``."""
    text = present(text)
    match = _AGE.fullmatch(text)
    if not match:
        return Age(None, bool(text))
    years = float(f"{match[1][:9]}{(match[2] or '').replace(',', '.')}")
    if years > _OLDEST or not math.isfinite(years):
        return Age(None, True)
    return Age(years, bool(match[3]) or "," in text)
