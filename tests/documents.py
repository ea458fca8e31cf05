"""What the documents say and promise, as tests read it."""

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = (README, *sorted((ROOT / "docs").glob("*.md")))

ACTIVATE = ". .venv/bin/activate"
"""After which the commands of a page are typed."""

_FENCED = re.compile(r"(?ms)^```(\w*)\n(.*?)^```$")
_SPAN = re.compile(r"`((?:[^`\n]|\n(?!\n))+)`")


def blocks(page: Path, language: str = "sh") -> list[str]:
    """Return the fenced blocks of a page in one language."""
    found = _FENCED.findall(page.read_text(encoding="utf-8"))
    return [text for name, text in found if name == language]


def prose(page: Path) -> str:
    """Return a page without its fenced blocks."""
    return _FENCED.sub("", page.read_text(encoding="utf-8"))


def spans(page: Path) -> list[str]:
    """Return what stands in backticks in a page, in one line each."""
    return [" ".join(text.split()) for text in _SPAN.findall(prose(page))]


def lines(page: Path) -> list[str]:
    """Return the lines of a page's shell blocks; a line that goes on below is one."""
    whole = "".join(blocks(page)).replace("\\\n", " ")
    return [line for line in whole.splitlines() if line.strip()]


def tables(page: Path) -> Iterator[list[list[str]]]:
    """Yield the tables of a page, each as rows of cells, the header first."""
    for table in re.findall(r"(?m)(?:^\|.*\n)+", prose(page)):
        rows = [line.strip("|\n ").split(" | ") for line in table.splitlines()]
        yield [row for row in rows if not set("".join(row)) <= set("-| ")]


def links(page: Path) -> list[str]:
    """Return the targets of a page's links and pictures."""
    return re.findall(r"\]\(([^)\s]+)\)", prose(page))


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"(?m)^#+ (.+)$", prose(page))
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}


def listed_records() -> set[str]:
    """Return the names of all records that docs/privacy.md says how they are paid for."""
    rows = _record_rows("Everything that leaves a site")
    assert all(re.match(r" (public|charged|refused)", row[2]) for row in rows)
    return _named(rows)


def records_of(heading: str) -> set[str]:
    """Return the names of the records in the table under a heading of docs/privacy.md."""
    return _named(_record_rows(heading))


def _record_rows(heading: str) -> list[list[str]]:
    text = (ROOT / "docs" / "privacy.md").read_text()
    section = text.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return [line.split("|")[1:-1] for line in section.splitlines() if line.startswith("| `")]


def _named(rows: list[list[str]]) -> set[str]:
    return {name for row in rows for name in re.findall(r"`(\w+)`", row[0])}


def switched_off() -> set[str]:
    """Return the settings that docs/deployment.md lists as switching off what libraries send."""
    text = (ROOT / "docs" / "deployment.md").read_text()
    table = text.partition("| switched off by |")[2].partition("\n\n")[0]
    return set(re.findall(r"`(\w+=\d)` \|$", table, re.MULTILINE))
