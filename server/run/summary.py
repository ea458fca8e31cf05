"""The results of a run, as text that a newcomer can read."""

from pathlib import Path

from common.answers.verdict import REFUSED
from common.formats import rounded
from common.json_types import JsonObject
from common.synthetic_note import synthetic_note
from common.text import printable
from server.run.card_gate import gate_lines
from server.run.card_groups import group_lines
from server.run.folder import GATE, STATISTICS_FILE, read_metrics
from server.survey.documents import survey_text


def result_text(run: Path) -> str:
    """Return what a finished run's folder holds as text: its metrics, or its statistics."""
    values = read_metrics(run)
    return survey_text(values) if (run / STATISTICS_FILE).exists() else run_summary(values)


def run_summary(metrics: JsonObject) -> str:
    """Return a run's metrics as text: a line for all sites, for each, and each left out."""
    rows = {"all sites": metrics["overall"], **metrics["sites"]}
    lines = [_summary(name, row) for name, row in rows.items()]
    lines += group_lines(metrics.get("groups"))
    lines += [printable(line) for line in metrics["data"].get("differing", [])]
    gate = gate_lines(metrics.get(GATE))
    left_out = metrics["data"]["left_out"].items()
    lines += [printable(f"left out: {site} {why}") for site, why in left_out]
    return "\n".join([*synthetic_note(metrics["data"]["synthetic"]), *lines, *gate])


def _summary(name: str, metrics: JsonObject) -> str:
    shown = ("balanced_accuracy", "macro_auc", "accuracy", "expected_calibration_error")
    cells = [f"{key.replace('_', ' ')} {rounded(metrics[key])}" for key in shown]
    return f"{name:16} {metrics['n']:5} test images  " + "  ".join(cells)


def exit_code(run: Path) -> int:
    """Return the exit code of a finished run: another than 0 where its parent's model stays."""
    gate = read_metrics(run).get(GATE)
    return REFUSED if gate and not gate["accepted"] else 0
