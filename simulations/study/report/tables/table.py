"""A table of a report, for people."""

from collections.abc import Sequence
from dataclasses import dataclass

from common.formats import markdown_table

Row = Sequence[str]


@dataclass(frozen=True)
class Table:
    """A table as text: the first cell of a row is its name.

    Attributes
    ----------
    verdict : whether the last cell is what follows from the others.
    """

    title: str
    header: Row
    rows: Sequence[Row]
    note: str = ""
    verdict: bool = False

    def markdown(self) -> str:
        """Return it as Markdown, under its title."""
        parts = (f"## {self.title}", markdown_table(self.header, self.rows), self.note)
        return "\n\n".join(part for part in parts if part)
