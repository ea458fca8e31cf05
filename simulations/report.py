"""The comparison as Markdown that a newcomer can read, and as JSON."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from common.config import RunConfig
from server.card import markdown_table
from simulations.comparison import Arm, Cost, Quality

SYNTHETIC_NOTE = (
    "**Synthetic images: generated, they describe no patients. "
    "The figures show that the software works, nothing about skin lesions.**"
)
_HEADER = (
    "training data",
    "sites",
    "balanced accuracy (95 % interval)",
    "macro AUC (95 % interval)",
    "calibration error, before → after",
    "largest difference from pooled",
    "other diagnoses than pooled",
    "C",
    "rounds: fit / all",
    "MB a site: moments + rest",
    "seconds",
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
        table(arms),
        "",
        *_missing(arms),
        "Every row is judged on the same test lesions, which no row was trained on or chosen "
        "by. *Difference* is the largest, over all test images and the diagnoses that a row "
        "was trained on, of a decision value from the pooled model's. Intervals are "
        "bootstrapped over lesions. Seconds are wall time in one process, features cached before.",
    ]
    path = out / "report.md"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def table(arms: Iterable[Arm]) -> str:
    """Return the arms as a Markdown table."""
    return markdown_table(_HEADER, map(_row, arms))


def _missing(arms: Iterable[Arm]) -> Iterator[str]:
    """Yield a line on each model and each site that the table lacks, then an empty one."""
    lines = [f"- {arm.name}: no model. {arm.failure}" for arm in arms if arm.failure]
    for arm in arms:
        lines += [f"- {arm.name}: left out {site} {why}" for site, why in arm.left_out.items()]
    if lines:
        yield from (*lines, "")


def _row(arm: Arm) -> list[str]:
    left = len(arm.left_out)
    sites = f"{arm.sites - left} of {arm.sites}" if left else str(arm.sites)
    if arm.quality is None or arm.cost is None:
        return [arm.name, sites, *["-"] * (len(_HEADER) - 2)]
    return [arm.name, sites, *_quality_cells(arm.quality), *_cost_cells(arm, arm.cost)]


def _quality_cells(quality: Quality) -> list[str]:
    low, high = quality.balanced_accuracy_interval
    auc_low, auc_high = quality.macro_auc_interval
    return [
        f"{quality.balanced_accuracy:.3f} ({low:.3f} to {high:.3f})",
        f"{quality.macro_auc:.3f} ({auc_low:.3f} to {auc_high:.3f})",
        f"{quality.calibration_error_before:.3f} → {quality.calibration_error:.3f}",
        "-" if quality.difference is None else f"{quality.difference:.1e}",
        "-" if quality.disagreements is None else str(quality.disagreements),
    ]


def _cost_cells(arm: Arm, cost: Cost) -> list[str]:
    return [
        "-" if arm.c is None else f"{arm.c:g}",
        f"{cost.fit_rounds} / {cost.rounds}",
        f"{cost.statistics / 1e6:.1f} + {cost.sums / 1e6:.1f}",
        f"{cost.seconds:.1f}",
    ]


def run_summary(metrics: Mapping[str, Any]) -> str:
    """Return a run's metrics as text: a line for all sites, for each, and each left out."""
    rows = {"all sites": metrics["overall"], **metrics["sites"]}
    lines = [_summary(name, row) for name, row in rows.items()]
    lines += [f"left out: {site} {why}" for site, why in metrics["data"]["left_out"].items()]
    return "\n".join([*([SYNTHETIC_NOTE, ""] if metrics["data"]["synthetic"] else []), *lines])


def _summary(name: str, metrics: Mapping[str, Any]) -> str:
    shown = ("balanced_accuracy", "macro_auc", "accuracy", "expected_calibration_error")
    cells = [
        f"{key.replace('_', ' ')} " + ("-" if metrics[key] is None else f"{metrics[key]:.3f}")
        for key in shown
    ]
    return f"{name:16} {metrics['n']:5} test images  " + "  ".join(cells)
