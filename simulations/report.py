"""Comparisons and evaluations as Markdown that a newcomer can read, and as JSON."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from common.config import RunConfig
from server.card import markdown_table
from simulations.comparison import Arm
from simulations.evaluation import Gap, Judged, Judgement, Quality
from simulations.intervals import Interval

SYNTHETIC_NOTE = (
    "**Synthetic images: generated, they describe no patients. "
    "The figures show that the software works, nothing about skin lesions.**"
)
_QUALITY_COLUMNS = (
    "training data",
    "sites",
    "balanced accuracy (95 % interval)",
    "macro AUC (95 % interval)",
    "calibration error, before → after",
)
_COLUMNS = {
    "svm": (
        *_QUALITY_COLUMNS,
        "largest difference from pooled",
        "other diagnoses than pooled",
        "C",
        "rounds: fit / all",
        "MB a site: moments + rest",
        "seconds",
    ),
    "finetune": (
        *_QUALITY_COLUMNS,
        "balanced accuracy minus pooled (95 % interval)",
        "other diagnoses than pooled",
        "rounds: training / all",
        "MB a site",
        "seconds",
    ),
}
_NOTES = {
    "svm": "*Difference* is the largest, over all test images and the diagnoses that a row "
    "was trained on, of a decision value from the pooled model's. Intervals are "
    "bootstrapped over lesions. Seconds are wall time in one process, features cached before.",
    "finetune": "Intervals are bootstrapped over lesions, that of a difference paired. Seconds "
    "are wall time in one process; activations of frozen layers are cached by the first row "
    "that needs them.",
}
_EVALUATION_COLUMNS = (
    "run",
    "balanced accuracy (95 % interval)",
    "macro AUC (95 % interval)",
    "accuracy",
    "calibration error",
    "balanced accuracy minus the first run's (95 % interval)",
    "macro AUC minus the first run's (95 % interval)",
)


def write_report(
    out: Path, arms: Sequence[Arm], config: RunConfig, data: Path, synthetic: bool, command: str
) -> Path:
    """Write ``report.md`` and ``report.json`` into ``out``; return the former's path."""
    values = {
        "command": command,
        "data": str(data),
        "synthetic": synthetic,
        "config": config.model_dump(mode="json"),
        "arms": [asdict(arm) for arm in arms],
    }
    (out / "report.json").write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    lines = [
        "# One classifier, pooled, federated and alone",
        "",
        *([SYNTHETIC_NOTE, ""] if synthetic else []),
        f"`{command}`",
        "",
        table(arms, config.method),
        "",
        *_missing(arms),
        "Every row is judged on the same test lesions, which no row was trained on or chosen by. "
        + _NOTES[config.method],
    ]
    path = out / "report.md"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def table(arms: Iterable[Arm], method: str) -> str:
    """Return the arms as a Markdown table with the columns that a method has."""
    columns = _COLUMNS[method]
    rows = ([cells.get(column, "-") for column in columns] for cells in map(_cells, arms))
    return markdown_table(columns, rows)


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
    lines += [f"left out: {site} {why}" for site, why in metrics["data"]["left_out"].items()]
    return "\n".join([*([SYNTHETIC_NOTE, ""] if metrics["data"]["synthetic"] else []), *lines])


def _missing(arms: Iterable[Arm]) -> Iterator[str]:
    """Yield a line on each model, site and time that the table lacks, then an empty one."""
    lines = [f"- {arm.name}: no model. {arm.failure}" for arm in arms if arm.failure]
    for arm in arms:
        lines += [f"- {arm.name}: left out {site} {why}" for site, why in arm.left_out.items()]
        if arm.cost is not None and arm.cost.seconds is None:
            lines.append(f"- {arm.name}: its seconds are not known, for it was interrupted")
    if lines:
        yield from (*lines, "")


def _cells(arm: Arm) -> dict[str, str]:
    """Return what is known of an arm by column, whatever its method."""
    left = len(arm.left_out)
    cells = {
        "training data": arm.name,
        "sites": f"{arm.sites - left} of {arm.sites}" if left else str(arm.sites),
    }
    if (quality := arm.quality) is not None:
        cells |= {
            **_quality_cells(quality),
            "calibration error, before → after": f"{quality.calibration_error_before:.3f} → "
            f"{quality.calibration_error:.3f}",
            "largest difference from pooled": _or_dash(quality.difference, ".1e"),
            "balanced accuracy minus pooled (95 % interval)": _gap_cells(quality.gap)[0],
            "other diagnoses than pooled": _or_dash(quality.disagreements, "d"),
        }
    if (cost := arm.cost) is not None:
        cells |= {
            "C": _or_dash(arm.c, "g"),
            "rounds: fit / all": f"{cost.fit_rounds} / {cost.rounds}",
            "rounds: training / all": f"{cost.fit_rounds} / {cost.rounds}",
            "MB a site: moments + rest": f"{cost.statistics / 1e6:.1f} + {cost.sums / 1e6:.1f}",
            "MB a site": f"{(cost.statistics + cost.sums) / 1e6:.1f}",
            "seconds": _or_dash(cost.seconds, ".1f"),
        }
    return cells


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


def _or_dash(value: float | None, form: str) -> str:
    return "-" if value is None else f"{value:{form}}"


def _summary(name: str, metrics: Mapping[str, Any]) -> str:
    shown = ("balanced_accuracy", "macro_auc", "accuracy", "expected_calibration_error")
    cells = [
        f"{key.replace('_', ' ')} " + ("-" if metrics[key] is None else f"{metrics[key]:.3f}")
        for key in shown
    ]
    return f"{name:16} {metrics['n']:5} test images  " + "  ".join(cells)
