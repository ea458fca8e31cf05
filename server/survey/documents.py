"""What a survey leaves in a run's folder: JSON, Markdown, and of statistics a page of HTML."""

from typing import Protocol

from common.formats import markdown, markdown_table
from common.json_types import Json, JsonObject
from common.synthetic_note import SYNTHETIC_NOTE, synthetic_note
from common.templates import template
from common.text import printable
from server.run.folder import STATISTICS_FILE, RunFolder
from server.survey import shared_pictures
from server.survey.page import PAGE
from server.survey.tables import Table, headline, lacking, note, remarks, tables

MARKDOWN_FILE, HTML_FILE = "statistics.md", "statistics.html"
DUPLICATES_FILE = "duplicates.md"

_TITLE = "Statistics of a federation"
_USE = (
    "Counts of images and lesions as they are at the sites, made before any training. Exact "
    "counts: no noise hides whether a lesion came or went between two runs."
)


class Described(Protocol):
    """What a method without a model found: statistics, or pictures that are at two sites."""

    def values(self) -> dict[str, Json]:
        """Return everything as JSON."""


def write_survey(folder: RunFolder, survey: Described) -> None:
    """Write all files; the JSON last, with which the run has its result."""
    values = survey.values()
    if _of_pictures(values):
        folder.write_text(DUPLICATES_FILE, shared_pictures.as_markdown(values))
    else:
        folder.write_text(MARKDOWN_FILE, as_markdown(values))
        folder.write_text(HTML_FILE, as_html(values))
    folder.write_json(STATISTICS_FILE, values)


def survey_text(values: JsonObject) -> str:
    """Return in lines what a method without a model found."""
    return shared_pictures.as_text(values) if _of_pictures(values) else as_text(values)


def _of_pictures(values: JsonObject) -> bool:
    return "shared" in values


def as_text(values: JsonObject) -> str:
    """Return a survey in lines: how much there is, and what to change."""
    lines = [*synthetic_note(values["synthetic"]), headline(values)]
    lines += [printable(f"{site}: {line}") for site, found in remarks(values) for line in found]
    return "\n".join([*lines, *filter(None, [printable(lacking(values))])])


def as_markdown(values: JsonObject) -> str:
    """Return a survey as Markdown."""
    found = [f"- {markdown(site)}: {markdown(t)}" for site, ts in remarks(values) for t in ts]
    parts = [
        *([SYNTHETIC_NOTE] if values["synthetic"] else []),
        f"# {_TITLE}",
        f"**{headline(values)}** {_USE} {note(values)}",
        "## What to change",
        "\n".join(found) or "Nothing.",
        *filter(None, [markdown(lacking(values))]),
        *(_part(table) for table in tables(values)),
    ]
    return "\n\n".join(parts) + "\n"


def _part(table: Table) -> str:
    parts = (f"## {table.title}", markdown_table(table.header, table.rows), table.note)
    return "\n\n".join(filter(None, parts))


def as_html(values: JsonObject) -> str:
    """Return a survey as one page that needs no other file."""
    return template(PAGE).render(
        title=_TITLE,
        use=f"{_USE} {note(values)}",
        headline=headline(values),
        synthetic=SYNTHETIC_NOTE.strip("*") if values["synthetic"] else "",
        remarks=[(printable(site), map(printable, found)) for site, found in remarks(values)],
        lacking=printable(lacking(values)),
        tables=tables(values),
    )
