"""Runs on groups of lesions as Markdown: figures, gaps to the rest, and what could be seen."""

from collections.abc import Iterator, Mapping, Sequence

from common.formats import estimate, markdown_table
from common.statistics.metrics import CALIBRATION_BINS
from common.text import printable
from simulations.evaluation.bounded import Bounded
from simulations.evaluation.groups.figures import LEAST, ByGroup, GroupFigures
from simulations.evaluation.groups.gaps import Gap
from simulations.evaluation.groups.measures import METRICS
from simulations.evaluation.judgement import Judgement

_HEADER = ("group", "lesions", *METRICS.values())


def group_tables(judgement: Judgement) -> Iterator[str]:
    """Yield tables of each run by groups; nothing where none were asked for."""
    for run in judgement.runs:
        if run.by_group is not None:
            yield from _run(run.run, run.by_group)


def shown_gaps(found: ByGroup) -> list[str]:
    """Return in words the gaps at one mix of diagnoses whose intervals are without 0."""
    return [
        f"{printable(group.group)}, {METRICS[name]} {gap}"
        for group in found.groups
        for name, gap in group.standardised.items()
        if gap.shown
    ]


def _run(run: str, found: ByGroup) -> Iterator[str]:
    for dimension, unknown in found.unknown.items():
        groups = [group for group in found.groups if group.dimension == dimension]
        yield f"{run} by {dimension} (95 % intervals of each figure):"
        yield ""
        if not groups:
            yield "No groups: the table names none."
            yield ""
            continue
        yield _table(groups, [list(map(_value, g.metrics.values())) for g in groups])
        yield ""
        yield "Minus the rest, the lesions of the other groups; then the smallest gap to be seen:"
        yield ""
        yield _table(groups, [_gaps(group.gaps) for group in groups])
        yield ""
        yield "The same at one mix of the diagnoses that group and rest both have:"
        yield ""
        yield _table(groups, [_gaps(group.standardised) for group in groups])
        yield ""
        if unknown:
            yield f"In no group, for the table does not say: {unknown:.0f} lesions."
            yield ""
    gaps = shown_gaps(found)
    yield f"{run}, gaps shown at one mix: {'; '.join(gaps) if gaps else 'none'}."
    yield ""
    yield (
        f"The intervals of {found.gaps} gaps hold together with 95 %, and reach "
        f"{found.reach:.2f} standard errors. The smallest gap to be seen is the one that would be "
        f"shown with a chance of 80 %: where none is shown, a smaller one may be there. Under "
        f"{LEAST} lesions (of melanomas, of the malignant, of the benign; for a calibration error "
        f"{LEAST * CALIBRATION_BINS}) there is no gap. Images of a lesion share its weight in all "
        "figures by group."
    )
    yield ""


def _table(groups: Sequence[GroupFigures], cells: Sequence[Sequence[str]]) -> str:
    rows = [
        (printable(group.group), f"{group.lesions:.0f}", *row)
        for group, row in zip(groups, cells, strict=True)
    ]
    return markdown_table(_HEADER, rows)


def _value(value: Bounded) -> str:
    return estimate(value.value, (value.low, value.high)).removesuffix(" (- to -)")


def _gaps(gaps: Mapping[str, Gap]) -> list[str]:
    return [gap.with_detectable() for gap in gaps.values()]
