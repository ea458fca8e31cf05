"""What a card and a summary say of whether a model may replace that of its parent."""

from common.answers.paired import FIGURES
from common.answers.verdict import decision
from common.formats import estimate, markdown_table, rounded
from common.json_types import JsonObject, number
from common.text import printable

_TEXT = """\
Both models on the lesions that the sites hold out, one image each, from added counts. Changes are
new minus old, with 95 % intervals that hold for all of them at once."""


def card_gate(found: JsonObject | None) -> list[str]:
    """Return the paragraphs about the model and that of its parent.

    Parameters
    ----------
    found : of :func:`server.replacement.judge`; None where they were not compared.
    """
    if found is None:
        return []
    said = f"Compared with the model {found['old'][:16]} (SHA-256). {_TEXT}"
    return ["## Gate", decision(found["reason"]), said, *_table(found), *_small(found)]


def gate_lines(found: JsonObject | None) -> list[str]:
    """Return the same as text for a newcomer: the decision last.

    Parameters
    ----------
    found : as of :func:`card_gate`.
    """
    if found is None:
        return []
    return [*_table(found), *_small(found), printable(decision(found["reason"]))]


def _table(found: JsonObject) -> list[str]:
    header = ("lesions of", "figure", "lesions", "old", "new", "change (95 %)", "")
    return [markdown_table(header, map(_row, found["rows"]))] if found["rows"] else []


def _row(row: JsonObject) -> tuple[str, ...]:
    value, low, high = (number(row["change"][name]) for name in ("value", "low", "high"))
    return (
        row["group"],
        FIGURES[row["metric"]],
        f"{row['lesions']:.0f}",
        rounded(row["old"]),
        rounded(row["new"]),
        "-" if value != value else estimate(value, (low, high), "+.3f"),
        row["verdict"],
    )


def _small(found: JsonObject) -> list[str]:
    few = printable(", ".join(found["small"]))
    return [f"Too few lesions to judge: {few}."] if few else []
