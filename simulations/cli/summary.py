"""Runs and evaluations as text that a newcomer can read."""

from collections.abc import Mapping
from typing import Any

from common.text import printable
from server.run.card import markdown_table
from simulations.study.evaluation import Gap, Judged, Judgement, Quality
from simulations.study.intervals import Interval

SYNTHETIC_NOTE = (
    "**Synthetic images: generated, they describe no patients. "
    "The figures show that the software works, nothing about skin lesions.**"
)
_EVALUATION_COLUMNS = (
    "run",
    "balanced accuracy (95 % interval)",
    "macro AUC (95 % interval)",
    "accuracy",
    "calibration error",
    "balanced accuracy minus the first run's (95 % interval)",
    "macro AUC minus the first run's (95 % interval)",
)


def evaluation(judgement: Judgement) -> str:
    """Return several runs on the same test lesions as Markdown."""
    lines = [
        *([SYNTHETIC_NOTE, ""] if judgement.synthetic else []),
        markdown_table(_EVALUATION_COLUMNS, map(_judged_row, judgement.runs)),
        "",
        f"All runs are judged on the same {judgement.images} test images of {judgement.lesions} "
        "lesions. Intervals are bootstrapped over lesions, those of differences paired: they say "
        "what other test lesions would change, not what training again would.",
    ]
    return "\n".join(lines)


def run_summary(metrics: Mapping[str, Any]) -> str:
    """Return a run's metrics as text: a line for all sites, for each, and each left out."""
    rows = {"all sites": metrics["overall"], **metrics["sites"]}
    lines = [_summary(name, row) for name, row in rows.items()]
    left_out = metrics["data"]["left_out"].items()
    lines += [printable(f"left out: {site} {why}") for site, why in left_out]
    return "\n".join([*([SYNTHETIC_NOTE, ""] if metrics["data"]["synthetic"] else []), *lines])


def _judged_row(run: Judged) -> list[str]:
    return [
        run.run,
        *_quality_cells(run.quality).values(),
        f"{run.quality.accuracy:.3f}",
        f"{run.quality.calibration_error:.3f}",
        *_gap_cells(run.gap),
    ]


def _quality_cells(quality: Quality) -> dict[str, str]:
    accuracy, auc = quality.balanced_accuracy_interval, quality.macro_auc_interval
    return {
        "balanced accuracy (95 % interval)": _estimate(quality.balanced_accuracy, accuracy),
        "macro AUC (95 % interval)": _estimate(quality.macro_auc, auc),
    }


def _gap_cells(gap: Gap | None) -> tuple[str, str]:
    """Return the differences in balanced accuracy and macro AUC, signed."""
    if gap is None:
        return "-", "-"
    return (
        _estimate(gap.balanced_accuracy, gap.balanced_accuracy_interval, "+"),
        _estimate(gap.macro_auc, gap.macro_auc_interval, "+"),
    )


def _estimate(value: float, interval: Interval, sign: str = "") -> str:
    shown, low, high = (f"{x:{sign}.3f}" for x in (value, *interval))
    return f"{shown} ({low} to {high})"


def _summary(name: str, metrics: Mapping[str, Any]) -> str:
    shown = ("balanced_accuracy", "macro_auc", "accuracy", "expected_calibration_error")
    cells = [
        f"{key.replace('_', ' ')} " + ("-" if metrics[key] is None else f"{metrics[key]:.3f}")
        for key in shown
    ]
    return f"{name:16} {metrics['n']:5} test images  " + "  ".join(cells)
