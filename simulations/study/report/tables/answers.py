"""The tables of how sure a study's models are, and how rightly."""

import math
from collections.abc import Iterator, Sequence

from common.answers.answer import TARGETS
from common.answers.operating import targets_of
from common.formats import estimate
from common.task import Task
from simulations.evaluation.answer_measures import AUGRCS, SHARES, SIZES
from simulations.study.findings import Findings, groups
from simulations.study.judging.coverage import CROSSED, DIMENSIONS, MANY, worst
from simulations.study.names import diagnosis, sentence
from simulations.study.points import shown, with_interval
from simulations.study.report.tables.table import Table
from simulations.study.results import ArmResult, Estimate, GroupCoverage, Groups

Group = Sequence[ArmResult]


def answer_tables(findings: Findings) -> Iterator[Table]:
    """Yield the tables; without a row in values of an old report."""
    arms = groups([r for r in findings.full if "augrc" in r.metrics])
    yield _how_sure(findings, arms)
    yield _scores(findings, arms)
    with_sets = [group for group in arms if group[0].coverage]
    yield _worst(findings, with_sets)
    for dimension in DIMENSIONS:
        yield _coverage(findings, with_sets, dimension)
    # Melanoma; where the task has none, what is malignant.
    for target in targets_of(findings.task)[:1]:
        for metric in (f"{target}_sensitivity", f"{target}_specificity"):
            yield _screening_by_site(findings, with_sets, metric)


def group_name(task: Task, dimension: str, name: str) -> str:
    """Name a group of lesions for a reader."""
    dx, at, site = name.partition(" at ")
    if dimension in ("diagnosis", CROSSED):
        return f"{diagnosis(task, dx)}{at}{site}"
    return name


def group_sizes(arms: Sequence[ArmResult], dimension: str) -> dict[str, float]:
    """Return the number of lesions of each group, that of the arm which has most."""
    sizes: dict[str, float] = {}
    for result in arms:
        for name, group in result.coverage[dimension].items():
            sizes[name] = max(group.lesions, sizes.get(name, 0.0))
    return sizes


def in_group(name: str, group: GroupCoverage) -> str:
    """Say the coverage of a group, with its interval and its number of lesions."""
    return f"{name}: {_shown(group)} of {group.lesions:.0f}"


def least_covered(task: Task, coverage: Groups) -> Iterator[str]:
    """Yield the least covered group of each dimension, and of ``CROSSED``, in words."""
    for dimension in (*DIMENSIONS, CROSSED):
        found = worst(coverage[dimension])
        yield "-" if found is None else in_group(group_name(task, dimension, found[0]), found[1])


def _how_sure(findings: Findings, arms: Sequence[Group]) -> Table:
    lacking_targets = set(TARGETS) - set(targets_of(findings.task))
    first, *others = (n for n in SHARES if n.partition("_")[0] not in lacking_targets)
    columns = (first, *SIZES, *others)
    without = [findings.names.alike(group) for group in arms if not group[0].coverage]
    lacking = (
        f" No sets: the models of {'; '.join(without)} have no calibration lesions, or too few."
        if without
        else ""
    )
    return Table(
        "How sure",
        ("arm", *((SHARES | SIZES)[name] for name in columns)),
        [
            (
                findings.names.alike(group),
                *(_cell(name, group[0].metrics[name]) for name in columns),
            )
            for group in arms
        ],
        "By the options that answers have unless others are set, the site unknown. Images of a "
        "lesion share its weight. AUGRC, 0 to 50, lower is better: the chance that of two lesions "
        f"the first is wrong and at least as sure as the second.{lacking}",
    )


def _scores(findings: Findings, arms: Sequence[Group]) -> Table:
    """Tell by which score the wrong answers are the least sure ones."""
    return Table(
        "AUGRC by score",
        ("arm", *AUGRCS.values()),
        [
            (findings.names.alike(group), *(_area(group[0].metrics[name]) for name in AUGRCS))
            for group in arms
        ],
        "The largest probability is what referral uses.",
    )


def _cell(name: str, value: Estimate) -> str:
    if math.isnan(value.mean):
        return "none"
    if name in SIZES:
        return estimate(value.mean, (value.low, value.high), ".2f")
    return _area(value) if name in AUGRCS else shown(value)


def _area(value: Estimate) -> str:
    """Return an area in points; it is small, so with a digit more."""
    if math.isnan(value.mean):
        return "none"
    return with_interval(value.mean, (value.low, value.high), ".2f")


def _worst(findings: Findings, arms: Sequence[Group]) -> Table:
    """Tell the least covered group of each dimension."""
    return Table(
        "Least covered by their sets",
        ("arm", *DIMENSIONS, CROSSED),
        [(findings.names.alike(g), *least_covered(findings.task, g[0].coverage)) for g in arms],
        f"Of the groups of at least {MANY} lesions, with Wilson's 95 % interval and the number of "
        "lesions; all folds together.",
    )


def _coverage(findings: Findings, arms: Sequence[Group], dimension: str) -> Table:
    sizes = group_sizes([group[0] for group in arms], dimension)
    header = (f"{group_name(findings.task, dimension, n)}, {size:.0f}" for n, size in sizes.items())
    rows = [
        (findings.names.alike(g), *(_shown(g[0].coverage[dimension].get(name)) for name in sizes))
        for g in arms
        if sizes
    ]
    return Table(
        f"Coverage by {dimension}",
        ("arm", *header),
        rows,
        "Beside a group stands its number of lesions.",
    )


def _screening_by_site(findings: Findings, arms: Sequence[Group], metric: str) -> Table:
    sites = list(dict.fromkeys(site for group in arms for site in group[0].sites))
    rows = [
        (
            findings.names.alike(g),
            *(shown(g[0].sites[s].metrics[metric]) if s in g[0].sites else "-" for s in sites),
        )
        for g in arms
        if sites
    ]
    note = "One threshold for all sites; all folds together."
    return Table(f"{sentence(SHARES[metric])} by site", ("arm", *sites), rows, note)


def _shown(group: GroupCoverage | None) -> str:
    """Return a coverage; of a group that is not in an arm's finished folds, none."""
    if group is None:
        return "-"
    return with_interval(group.value, (group.low, group.high))
