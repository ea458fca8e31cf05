"""The table of groups of lesions."""

from collections.abc import Iterator

from simulations.evaluation.groups.figures import LEAST, GroupFigures
from simulations.evaluation.groups.gaps import Gap
from simulations.evaluation.groups.measures import METRICS
from simulations.study.findings import Findings
from simulations.study.judging.groups_of_arm import DIMENSIONS
from simulations.study.points import SIGNED, in_points, with_interval
from simulations.study.ranking import of_each_route
from simulations.study.report.tables.table import Row, Table
from simulations.study.results import ArmResult


def group_table(findings: Findings) -> Table:
    """Return the figures of each group: of each route the best federated arm."""
    arms = [r for r in of_each_route(findings) if r.by_group is not None]
    notes = [
        f"{findings.names.arm(r.arm)}: {r.by_group.gaps} gaps are judged together"
        for r in arms
        if r.by_group is not None
    ]
    return Table(
        "Groups of lesions",
        (
            "arm",
            "group",
            "lesions",
            *METRICS.values(),
            "balanced accuracy minus the rest, one mix of diagnoses",
            "smallest such gap to be seen",
            "gaps shown, one mix",
        ),
        [
            (findings.names.arm(r.arm), f"{g.dimension}: {g.group}", *_cells(g))
            for r in arms
            for _, groups in groups_by_dimension(r)
            for g in groups
        ],
        "Each figure has its own 95 % interval; those of gaps hold together, over all groups and "
        "metrics of an arm. The rest: lesions of the other groups. A gap that is not shown may be "
        f"there: one of the smallest to be seen is shown with a chance of 80 %. Under {LEAST} "
        f"lesions there is no gap. Images of a lesion share its weight. {'; '.join(notes)}.",
        verdict=True,
    )


def groups_by_dimension(result: ArmResult) -> Iterator[tuple[str, list[GroupFigures]]]:
    """Yield each dimension of an arm's groups, and the groups."""
    groups = () if result.by_group is None else result.by_group.groups
    for dimension in DIMENSIONS:
        yield dimension, [group for group in groups if group.dimension == dimension]


def gap_in_words(gap: Gap) -> str:
    """Return a gap in points with its interval."""
    return with_interval(gap.value, (gap.low, gap.high), SIGNED)


def _cells(group: GroupFigures) -> Row:
    gap = group.standardised["balanced_accuracy"]
    shown = [
        f"{METRICS[name]} {gap_in_words(each)}"
        for name, each in group.standardised.items()
        if each.shown
    ]
    return (
        f"{group.lesions:.0f}",
        *(with_interval(v.value, (v.low, v.high)) for v in group.metrics.values()),
        gap_in_words(gap),
        in_points(gap.detectable),
        "; ".join(shown) or "none",
    )
