"""The tables of a study, for people."""

from collections.abc import Iterator, Mapping

from common.text import printable
from simulations.evaluation.measures import MELANOMA, PER_CLASS, SCALARS
from simulations.study.findings import FEDERATION, LABELS, ROUTES, Findings, groups
from simulations.study.names import diagnosis
from simulations.study.points import in_points, shown
from simulations.study.report.tables.answers import answer_tables
from simulations.study.report.tables.costs import cost_tables
from simulations.study.report.tables.differences import differences
from simulations.study.report.tables.groups import group_table
from simulations.study.report.tables.sites import site_tables
from simulations.study.report.tables.table import Table
from simulations.study.results import ArmResult


def tables(findings: Findings) -> list[Table]:
    """Return the tables of a study, those without a row left out."""
    all_tables = (
        _quality(findings),
        *answer_tables(findings),
        group_table(findings),
        _spread_over_folds(findings),
        *_per_class(findings),
        differences(findings, FEDERATION, "Federated and alone, against pooled data"),
        differences(findings, ROUTES, "One route against the other"),
        differences(findings, LABELS, "Diagnoses that lack, against all of them"),
        *site_tables(findings),
        *cost_tables(findings),
        _curve(findings),
        _unfinished(findings),
    )
    return [table for table in all_tables if table.rows]


def _quality(findings: Findings) -> Table:
    scalars = _scalars(findings)
    return Table(
        "Quality",
        ("arm", *scalars.values(), "against pooled"),
        [
            (
                findings.names.alike(group),
                *(_shown(group[0], metric) for metric in scalars),
                findings.standing(group),
            )
            for group in groups(findings.full)
        ],
        "Means over folds, in brackets the 95 % interval of a bootstrap over lesions, within class "
        f"and fold. {_of_calibration(findings)} Brier scores are sums over the classes, up to 200.",
        verdict=True,
    )


def _of_calibration(findings: Findings) -> str:
    if any(r.most_likely is None for r in findings.full):
        return "Calibration errors have no interval: an older report kept it uncorrected."
    return (
        "A calibration error of resamples is larger on average than that of the data; its interval "
        "is moved by as much."
    )


def _spread_over_folds(findings: Findings) -> Table:
    scalars = _scalars(findings)
    return Table(
        "Standard deviation over folds",
        ("arm", "folds", *scalars.values()),
        [
            (
                findings.names.alike(group),
                str(len(group[0].cells)),
                *(in_points(group[0].metrics[m].sd) for m in scalars),
            )
            for group in groups(findings.full)
        ],
    )


def _scalars(findings: Findings) -> dict[str, str]:
    """Return the metrics over all classes that the arms have; old values and tasks lack some."""
    known = {metric for r in findings.full for metric in r.metrics}
    if MELANOMA not in findings.task.codes:
        known.discard("melanoma_sensitivity")
    return {metric: name for metric, name in SCALARS.items() if metric in known}


def _per_class(findings: Findings) -> Iterator[Table]:
    codes = findings.task.codes
    names = [diagnosis(findings.task, dx) for dx in codes]
    for metric, title in PER_CLASS.items():
        rows = [
            (findings.names.alike(g), *(_shown(g[0], f"{metric}/{dx}") for dx in codes))
            for g in groups(findings.full)
        ]
        yield Table(f"{title} by diagnosis", ("arm", *names), rows)


def _curve(findings: Findings) -> Table:
    curved = {r.arm[:3] for r in findings.arms if r.arm.scale < 1}
    rows = [
        (
            f"{findings.names.routes[r.arm.route]}, {findings.names.way(r.arm)}",
            f"{r.arm.scale:.0%}",
            str(round(sum(c["training"]["lesions"] for c in r.cells.values()) / len(r.cells))),
            shown(r.balanced),
            _shown(r, "macro_auc"),
        )
        for r in findings.known
        if r.arm[:3] in curved
    ]
    return Table(
        "Learning curves",
        ("arm", "share", "training lesions", "balanced accuracy", "macro AUC"),
        rows,
        "A smaller share is part of the larger ones.",
    )


def _unfinished(findings: Findings) -> Table:
    name = findings.names.arm
    rows = [
        (name(r.arm), str(fold), printable(f"failed: {why}"))
        for r in findings.arms
        for fold, why in r.failures.items()
    ]
    rows += [(name(r.arm), str(f), "not run yet") for r in findings.arms for f in r.missing]
    rows += [
        (name(r.arm), str(fold), printable(f"left out: {', '.join(sites)} {why}"))
        for r in findings.arms
        for fold, cell in r.cells.items()
        for why, sites in _by_reason(cell["left_out"]).items()
    ]
    return Table(
        "What is missing",
        ("arm", "fold", "what and why"),
        rows,
        "The figures of an arm are means over the folds that have a model.",
    )


def _by_reason(left_out: Mapping[str, str]) -> dict[str, list[str]]:
    reasons: dict[str, list[str]] = {}
    for site, why in left_out.items():
        reasons.setdefault(why, []).append(site)
    return reasons


def _shown(result: ArmResult, metric: str) -> str:
    return shown(result.metrics[metric])
