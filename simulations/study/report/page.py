"""A study's report: one HTML page, Markdown tables, and every number as JSON and CSV."""

import csv
import io
import json
from pathlib import Path

from common.command_line import command
from common.json_types import plain
from common.storage.whole_files import write_atomically
from common.synthetic_note import SYNTHETIC_NOTE
from common.templates import templates
from simulations.study.advice import Advice, advise
from simulations.study.findings import About, Findings, groups
from simulations.study.headline import Headline, headline
from simulations.study.ranking import best_alone
from simulations.study.report.charts.all_charts import draw
from simulations.study.report.charts.dotplot import arms_chart, dot_plot
from simulations.study.report.charts.style import DARK, LIGHT
from simulations.study.report.glossary import glossary
from simulations.study.report.tables.all_tables import tables
from simulations.study.report.tables.table import Table
from simulations.study.report.tidy import COLUMNS, tidy
from simulations.study.report.values import to_values

HTML_FILE, MARKDOWN_FILE = "report.html", "report.md"
JSON_FILE, CSV_FILE = "report.json", "report.csv"
CHART_FILE = "arms.svg"

_TEMPLATE = "report.html.j2"

POINTS = (
    "Metrics and their differences are in points, hundredths of the whole; p-values are fractions."
)


def write_report(out: Path, findings: Findings) -> str:
    """Write all files into ``out``; return the Markdown."""
    about: About = {**findings.about, "command": command()}
    values = to_values(findings, about, advise(findings))
    _write(out / JSON_FILE, json.dumps(values, indent=1) + "\n")
    _write(out / CSV_FILE, _csv(findings))
    return write_pages(out, findings, about)


def write_pages(out: Path, findings: Findings, about: About) -> str:
    """Write the page, the Markdown and its chart into ``out``; return the Markdown."""
    advices, shown, first = advise(findings), tables(findings), headline(findings)
    chart = arms_chart(findings)
    if chart is not None:
        write_atomically(out / CHART_FILE, chart)
    text = _markdown(findings, about, first, advices, shown, chart is not None)
    _write(out / HTML_FILE, _html(findings, about, first, advices, shown))
    _write(out / MARKDOWN_FILE, text)
    return text


def _write(file: Path, content: str) -> None:
    write_atomically(file, content.encode())


def _html(
    findings: Findings, about: About, first: Headline, advices: list[Advice], shown: list[Table]
) -> str:
    return (
        templates(Path(__file__).parent)
        .get_template(_TEMPLATE)
        .render(
            study=findings.study,
            study_text=json.dumps(findings.study.model_dump(mode="json"), indent=1),
            about=about,
            synthetic=SYNTHETIC_NOTE.strip("*"),
            first=first,
            plot=dot_plot(findings),
            advices=advices,
            charts=draw(findings),
            confusions=_confusions(findings),
            diagnoses=dict(zip(findings.task.codes, findings.task.names, strict=True)),
            tables=shown,
            glossary=glossary(findings),
            points=POINTS,
            palettes={"light": LIGHT, "dark": DARK},
        )
    )


def _confusions(findings: Findings) -> list[tuple[str, list[list[int]]]]:
    """Return the matrices of arms, identical ones once, and of each route's best site alone."""
    alone = (best_alone(findings, route) for route in findings.study.routes)
    chosen = [*findings.whole, *(r for r in alone if r is not None)]
    return [(findings.names.alike(g), g[0].confusion.tolist()) for g in groups(chosen)]


def _markdown(
    findings: Findings,
    about: About,
    first: Headline,
    advices: list[Advice],
    shown: list[Table],
    drawn: bool,
) -> str:
    study, versions = findings.study, about["versions"].items()
    parts = [
        *([SYNTHETIC_NOTE] if about["synthetic"] else []),
        *([f"*{unknown}.*"] if (unknown := about.get("unknown_lesions")) else []),
        f"# {study.title}",
        f"**{first.answer}**",
        *([f"![Balanced accuracy of each arm, with its 95 % interval]({CHART_FILE})"] * drawn),
        "\n".join(f"- {tile.title}: **{tile.value}** ({tile.text})" for tile in first.tiles),
        f"{study.folds} folds of whole lesions, seed {study.seed}. Every arm is tested on the same "
        "lesions, each once; none was trained on them, chosen by them or calibrated on them. "
        f"{POINTS}",
        f"Limits: {first.limits}",
        *(f"**{a.question}** {a.answer} *Rule: {a.rule}*" for a in advices),
        *(table.markdown() for table in shown),
        "## How this was made",
        f"`{about['command']}`",
        f"Data {about['fingerprint']}; {about['machine']}; "
        f"{', '.join(f'{name} {number}' for name, number in versions)}.",
    ]
    return "\n\n".join(parts) + "\n"


def _csv(findings: Findings) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(map(plain, row) for row in tidy(findings))
    return out.getvalue()
