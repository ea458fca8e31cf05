"""A study's report: one HTML page, Markdown tables, and every number as JSON and CSV."""

import csv
import io
import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from common.command_line import command
from common.files import write_atomically
from common.synthetic_note import SYNTHETIC_NOTE
from common.task import DIAGNOSES
from simulations.study.advice import Advice, advise
from simulations.study.findings import About, Findings
from simulations.study.report.charts import draw
from simulations.study.report.tables import Table, tables
from simulations.study.report.tidy import COLUMNS, tidy
from simulations.study.results import FALSE_POSITIVE_RATES, ArmResult, SiteQuality

HTML_FILE, MARKDOWN_FILE = "report.html", "report.md"
JSON_FILE, CSV_FILE = "report.json", "report.csv"

_TEMPLATE = "report.html.j2"


class Made(About):
    """What a study rests on, and the command that made this report."""

    command: str


def write_report(out: Path, findings: Findings) -> str:
    """Write all four files into ``out``; return the Markdown."""
    about: Made = {"command": command(), **findings.about}
    advices, shown = advise(findings), tables(findings)
    text = _markdown(findings, about, advices, shown)
    for name, content in (
        (HTML_FILE, _html(findings, about, advices, shown)),
        (MARKDOWN_FILE, text),
        (JSON_FILE, json.dumps(_plain(_values(findings, about, advices)), indent=1) + "\n"),
        (CSV_FILE, _csv(findings)),
    ):
        write_atomically(out / name, content.encode())
    return text


def _html(findings: Findings, about: Made, advices: list[Advice], shown: list[Table]) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    return environment.get_template(_TEMPLATE).render(
        study=findings.study,
        study_text=json.dumps(findings.study.model_dump(mode="json"), indent=1),
        about=about,
        synthetic=SYNTHETIC_NOTE.strip("*"),
        unfinished=_unfinished(findings),
        advices=advices,
        charts=draw(findings),
        confusions=[(r.arm.name, r.counts.confusion.tolist()) for r in findings.full],
        diagnoses=DIAGNOSES,
        tables=shown,
    )


def _unfinished(findings: Findings) -> str:
    """Warn of cells without a model; "" where there are none."""
    cells = sum(len(r.failures) + len(r.missing) for r in findings.arms)
    return f"Cells without a model: {cells}; the last table says which." if cells else ""


def _markdown(findings: Findings, about: Made, advices: list[Advice], shown: list[Table]) -> str:
    study, versions = findings.study, about["versions"].items()
    parts = [
        *([SYNTHETIC_NOTE] if about["synthetic"] else []),
        f"# {study.title}",
        f"{about['images']} images of {about['lesions']} lesions, {study.folds} folds of whole "
        f"lesions, seed {study.seed}. Every arm is tested on the same lesions, each once; none was "
        "trained on them, chosen by them or calibrated on them.",
        *([f"**{_unfinished(findings)}**"] if _unfinished(findings) else []),
        *(f"**{a.question}** {a.answer} *Rule: {a.rule}*" for a in advices),
        *(table.markdown() for table in shown),
        "## How this was made",
        f"`{about['command']}`",
        f"Data {about['fingerprint']}; {about['machine']}; "
        f"{', '.join(f'{name} {number}' for name, number in versions)}.",
    ]
    return "\n\n".join(parts) + "\n"


def _values(findings: Findings, about: Made, advices: list[Advice]) -> dict[str, object]:
    return {
        "about": about,
        "study": findings.study.model_dump(mode="json"),
        "advice": [asdict(advice) for advice in advices],
        "arms": [_arm(result, findings) for result in findings.arms],
        "comparisons": [{**asdict(c), "verdict": c.verdict} for c in findings.comparisons],
        "routes": {route: asdict(cost) for route, cost in findings.costs.items()},
    }


def _arm(result: ArmResult, findings: Findings) -> dict[str, object]:
    values: dict[str, object] = {
        "name": result.arm.name,
        **result.arm._asdict(),
        "failures": result.failures,
        "missing": result.missing,
    }
    if not result.resampled:
        return values
    counts, cost = result.counts, findings.cost(result)
    return {
        **values,
        "metrics": {name: asdict(value) for name, value in result.metrics.items()},
        "confusion": counts.confusion.tolist(),
        "reliability": {
            "images": counts.calibration[0].tolist(),
            "right": counts.calibration[1].tolist(),
            "confidence": counts.confidence.tolist(),
        },
        "roc": {
            "false_positive_rate": FALSE_POSITIVE_RATES.tolist(),
            **{dx: curve.tolist() for dx, curve in result.roc().items()},
        },
        "sites": {site: _site(quality) for site, quality in result.sites.items()},
        "cost": None if cost is None else asdict(cost),
        "cells": dict(result.cells),
    }


def _site(quality: SiteQuality) -> dict[str, object]:
    metrics = {name: value._asdict() for name, value in quality.metrics.items()}
    return {
        "images": quality.images,
        "lesions": quality.lesions,
        "metrics": metrics,
        "confusion": quality.confusion.tolist(),
    }


def _csv(findings: Findings) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(map(_plain, row) for row in tidy(findings))
    return out.getvalue()


def _plain(value: object) -> object:
    """Return values with None for what is no number."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
