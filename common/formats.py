"""How reports write numbers and tables."""

import math
import re
from collections.abc import Iterable, Sequence

from common.text import printable

_MARKUP = re.compile(r"[\\`*\[\]<>|]")


def rounded(value: float | None, layout: str = ".3f", missing: str = "-") -> str:
    """Return a number as text, ``missing`` for None and nan."""
    return missing if value is None or math.isnan(value) else f"{value:{layout}}"


def between(bounds: Sequence[float | None], layout: str = ".3f") -> str:
    """Return an interval as text, of a lower and an upper bound."""
    low, high = (rounded(bound, layout) for bound in bounds)
    return f"{low} to {high}"


def estimate(value: float | None, bounds: Sequence[float | None], layout: str = ".3f") -> str:
    """Return a value with its interval in brackets."""
    return f"{rounded(value, layout)} ({between(bounds, layout)})"


def markdown(text: str) -> str:
    """Return a text as it stands, on one line of Markdown: it may be a site's own words."""
    return _MARKUP.sub(r"\\\g<0>", printable(text))


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table in Markdown; what the cells hold is shown as it stands."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(markdown(str(cell)) for cell in line)} |" for line in lines)
