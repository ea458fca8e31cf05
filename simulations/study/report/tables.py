"""The tables of a study, for people."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from common.formats import between, estimate, markdown_table, rounded
from common.task import DIAGNOSES
from common.text import printable
from simulations.study.cost import ArmCost
from simulations.study.findings import FEDERATION, ROUTES, Findings
from simulations.study.measures import PER_CLASS, SCALARS
from simulations.study.paired_tests import Comparison, points
from simulations.study.results import ArmResult

Row = Sequence[str]


@dataclass(frozen=True)
class Table:
    """A table as text: the first cell of a row is its name."""

    title: str
    header: Row
    rows: Sequence[Row]
    note: str = ""

    def markdown(self) -> str:
        """Return it as Markdown, under its title."""
        parts = (f"## {self.title}", markdown_table(self.header, self.rows), self.note)
        return "\n\n".join(part for part in parts if part)


def tables(findings: Findings) -> list[Table]:
    """Return the tables of a study, those without a row left out."""
    all_tables = (
        _quality(findings),
        _spread_over_folds(findings),
        *_per_class(findings),
        _differences(findings, FEDERATION, "Federated and alone, against pooled data"),
        _differences(findings, ROUTES, "One route against the other"),
        *_sites(findings),
        _arm_costs(findings),
        _route_costs(findings),
        _curve(findings),
        _unfinished(findings),
    )
    return [table for table in all_tables if table.rows]


def _quality(findings: Findings) -> Table:
    return Table(
        "Quality",
        ("arm", *SCALARS.values()),
        [(r.arm.name, *(_estimate(r, metric) for metric in SCALARS)) for r in findings.full],
        "Mean over folds, in brackets the 95 % interval of a bootstrap over lesions, within class "
        "and fold; the calibration error of a resample is larger on average than that of the data. "
        "Brier scores are sums over the classes, in [0, 2].",
    )


def _spread_over_folds(findings: Findings) -> Table:
    return Table(
        "Standard deviation over folds",
        ("arm", "folds", *SCALARS.values()),
        [
            (r.arm.name, str(len(r.resampled)), *(rounded(r.metrics[m].sd) for m in SCALARS))
            for r in findings.full
        ],
    )


def _per_class(findings: Findings) -> Iterator[Table]:
    for metric, title in PER_CLASS.items():
        rows = [
            (r.arm.name, *(_estimate(r, f"{metric}/{dx}") for dx in DIAGNOSES))
            for r in findings.full
        ]
        yield Table(f"{title} by diagnosis", ("arm", *DIAGNOSES), rows)


def _differences(findings: Findings, family: str, title: str) -> Table:
    differences = [c for c in findings.comparisons if c.family == family]
    return Table(
        title,
        (
            "arm",
            "minus",
            "balanced accuracy",
            "90 % interval",
            "p",
            "p, Holm",
            "p of equivalence, Holm",
            "macro AUC",
            "verdict",
        ),
        [_difference(c) for c in differences],
        f"Paired over the same lesions, 95 % intervals in brackets. {len(differences)} tests are "
        f"corrected together. Equal means within {points(findings.study.margin)} of "
        "balanced accuracy: both one-sided tests of the bootstrap below 5 %. All of it says what "
        "other lesions would change, not what training again would: a network's draws of batches "
        "move its figures too.",
    )


def _difference(c: Comparison) -> Row:
    return (
        c.first,
        c.second,
        estimate(c.difference, c.interval, "+.3f"),
        between(c.inner, "+.3f"),
        f"{c.p:.4f}",
        f"{c.p_adjusted:.4f}",
        f"{c.p_equivalent_adjusted:.4f}",
        estimate(c.auc, c.auc_interval, "+.3f"),
        c.verdict,
    )


def _sites(findings: Findings) -> Iterator[Table]:
    arms = [r for r in findings.full if r.sites]
    sites = {site: quality for r in arms for site, quality in r.sites.items()}
    for metric in ("balanced_accuracy", "macro_auc", "accuracy"):
        yield Table(
            f"{SCALARS[metric]} by site".capitalize().replace("auc", "AUC"),
            ("arm", *(f"{site}, {quality.images} images" for site, quality in sites.items())),
            [(r.arm.name, *(_site(r, site, metric) for site in sites)) for r in arms],
            "On the lesions of each source, all folds together; means are over the diagnoses that "
            "it has. The other metrics are in report.json and report.csv.",
        )


def _site(result: ArmResult, site: str, metric: str) -> str:
    if site not in result.sites:
        return "-"
    value, *bounds = result.sites[site].metrics[metric]
    return estimate(value, bounds)


def _arm_costs(findings: Findings) -> Table:
    rows, cores = [], set()
    for result in findings.full:
        cost, cell = findings.cost(result), next(iter(result.cells.values()))
        cells = ["-"] * 8 if cost is None else _cost_cells(cost)
        rows.append((result.arm.name, str(cell["sites"]), *cells))
        cores |= {cell["cores"] for cell in result.cells.values()}
    shown = " or ".join(map(str, sorted(cores)))
    return Table(
        "Cost of training",
        (
            "arm",
            "sites",
            "features, s",
            "training at a site, s",
            "waiting of a site, s",
            "here in all, s",
            "peak memory, MB",
            "rounds",
            "kB a site sends in a round",
            "kB it receives",
        ),
        rows,
        "Means over folds. Features: seconds to compute those of the training images, once, on all "
        "cores. Training and waiting: of a site that has a machine of its own. Here in all: one "
        "process, the sites one after the other, features read from disk. Training here had "
        f"{shown} of {findings.about['machine']} for a process, others beside it. Arms "
        "interrupted in every fold have no figures.",
    )


def _cost_cells(cost: ArmCost) -> Row:
    memory = "-" if cost.peak_memory is None else f"{cost.peak_memory / 1e6:.0f}"
    seconds = (f"{value:.1f}" for value in (cost.features, cost.training, cost.waiting, cost.wall))
    sent = (f"{value / 1e3:.1f}" for value in (cost.up, cost.down))
    return (*seconds, memory, f"{cost.rounds:.0f}", *sent)


def _route_costs(findings: Findings) -> Table:
    rows = []
    for route, cost in findings.costs.items():
        times = [cost.latency[batch] for batch in (1, 32)]
        rows.append(
            (
                route,
                f"{times[0] * 1e3:.1f}",
                f"{1 / times[0]:.1f}",
                f"{32 / times[1]:.1f}",
                f"{cost.model_bytes / 1e6:.2f}",
                f"{cost.backbone_bytes / 1e6:.1f}",
            )
        )
    return Table(
        "Cost of a diagnosis",
        (
            "route",
            "ms an image",
            "images/s, batch 1",
            "images/s, batch 32",
            "model, MB",
            "pretrained weights, MB",
        ),
        rows,
        "From an image file's bytes to probabilities, all prediction views, on all cores.",
    )


def _curve(findings: Findings) -> Table:
    curved = {r.arm[:3] for r in findings.arms if r.arm.scale < 1}
    rows = [
        (
            f"{r.arm.route} {r.arm.data}",
            f"{r.arm.scale:.0%}",
            str(round(sum(c["training"]["lesions"] for c in r.cells.values()) / len(r.cells))),
            _estimate(r, "balanced_accuracy"),
            _estimate(r, "macro_auc"),
        )
        for r in findings.arms
        if r.resampled and r.arm[:3] in curved
    ]
    return Table(
        "Learning curves",
        ("arm", "share", "training lesions", "balanced accuracy", "macro AUC"),
        rows,
        "A smaller share is part of the larger ones.",
    )


def _unfinished(findings: Findings) -> Table:
    rows = [
        (r.arm.name, str(fold), printable(f"failed: {why}"))
        for r in findings.arms
        for fold, why in r.failures.items()
    ]
    rows += [(r.arm.name, str(f), "not run yet") for r in findings.arms for f in r.missing]
    rows += [
        (r.arm.name, str(fold), printable(f"left out: {', '.join(sites)} {why}"))
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


def _estimate(result: ArmResult, metric: str) -> str:
    value = result.metrics[metric]
    return estimate(value.mean, (value.low, value.high))
