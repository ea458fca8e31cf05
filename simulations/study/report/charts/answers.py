"""The charts of how sure a study's models are: coverage of sets where it hurts, and referral."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from common.task import Task
from simulations.study.findings import Findings
from simulations.study.judging.coverage import DIMENSIONS, MANY, WANTED, worst
from simulations.study.names import sentence
from simulations.study.points import in_points, with_interval
from simulations.study.ranking import of_each_route
from simulations.study.report.charts.drawing import Look, drawn, identities
from simulations.study.report.charts.svg import INK, Chart, as_chart, new_figure, stacked
from simulations.study.report.tables.answers import group_name, group_sizes, in_group
from simulations.study.results import ACCEPTED, ArmResult, GroupCoverage

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ROW = 0.16
"""Inches that a group takes, and each arm in it."""


def coverage(findings: Findings, look: Look) -> Chart | None:
    """Draw how often sets hold the diagnosis in each group: of each route the best federated arm.

    Without a federated arm it is the best of all.
    """
    arms = list(of_each_route(findings))
    if not arms:
        return None
    shown = [d for d in DIMENSIONS if any(r.coverage[d] for r in arms)]
    sizes = [group_sizes(arms, dimension) for dimension in shown]
    figure, panels = stacked(list(map(len, sizes)), _ROW * (1 + len(arms)))
    for panel, dimension, groups in zip(panels, shown, sizes, strict=True):
        _panel(panel, findings.task, arms, dimension, groups, look)
    figure.supxlabel("coverage, points of the lesions")
    look.key(figure, arms, lines=False)
    least = "; ".join(
        f"{findings.names.arm(r.arm)}: {_least(findings.task, r, shown)}" for r in arms
    )
    note = (
        f"The broken line is what is promised, {100 * WANTED:g} points; numbers behind names are "
        f"lesions, horizontal lines 95 % intervals. Least of at least {MANY} lesions: {least}."
    )
    return as_chart("Coverage of prediction sets", note, _in_words(findings, arms, shown), figure)


def _panel(
    panel: "Axes",
    task: Task,
    arms: Sequence[ArmResult],
    dimension: str,
    sizes: Mapping[str, float],
    look: Look,
) -> None:
    """Draw the groups of a dimension from above, the arms a step apart from each other."""
    step = 0.8 / len(arms)
    names = list(sizes)[::-1]
    for number, result in enumerate(arms):
        shift = ((len(arms) - 1) / 2 - number) * step
        for name, group in result.coverage[dimension].items():
            y, bounds = names.index(name) + shift, [100 * group.low, 100 * group.high]
            panel.plot(bounds, [y, y], color=look.colour(result), linewidth=1)
            panel.plot(100 * group.value, y, **look.point(result))
    labels = [f"{group_name(task, dimension, name)}, {sizes[name]:.0f}" for name in names]
    panel.set_yticks(range(len(names)), labels)
    panel.set_ylim(-0.6, len(names) - 0.4)
    panel.axvline(100 * WANTED, color=INK, linestyle="--", linewidth=0.8)
    panel.grid(axis="x")
    panel.set_title(sentence(dimension), loc="left")


def _least(task: Task, result: ArmResult, dimensions: Sequence[str]) -> str:
    found = ((d, worst(result.coverage[d])) for d in dimensions)
    return ", ".join(in_group(group_name(task, d, w[0]), w[1]) for d, w in found if w is not None)


def _in_words(findings: Findings, arms: Sequence[ArmResult], dimensions: Sequence[str]) -> str:
    parts = (
        f"{findings.names.arm(r.arm)}, by {d}: "
        + ", ".join(_said(group_name(findings.task, d, n), g) for n, g in r.coverage[d].items())
        for r in arms
        for d in dimensions
    )
    return f"{'; '.join(parts)}."


def _said(name: str, group: GroupCoverage) -> str:
    return f"{name}: {with_interval(group.value, (group.low, group.high))}"


def referral(findings: Findings, look: Look) -> Chart | None:
    """Draw how often the surest answers are wrong, where a person looks at the others."""
    arms = [r for r in drawn(findings.whole) if r.referral is not None]
    if not arms:
        return None
    figure, axes = new_figure(2.8)
    for number, result in enumerate(arms):
        axes.plot(
            100 * ACCEPTED,
            100 * np.asarray(result.referral),
            **look.line(result),
            markevery=(5 + 7 * number % 20, 20),
        )
    axes.set_xlabel("surest lesions that the model answers, points")
    axes.set_ylabel("of these wrong, points")
    axes.set_ylim(bottom=0)
    axes.grid()
    look.key(figure, arms)
    note = (
        "Sure is how large the largest probability is; wrong, where the likeliest diagnosis is. "
        f"All folds together. {identities(findings, findings.whole)}"
    ).strip()
    in_words = "; ".join(f"{findings.names.arm(r.arm)}: {_at_shares(r)}" for r in arms)
    return as_chart("Referral", note, f"Wrong, by the share answered. {in_words}.", figure)


def _at_shares(result: ArmResult) -> str:
    risks = dict(zip(np.round(100 * ACCEPTED), np.asarray(result.referral), strict=True))
    return ", ".join(f"{share}: {in_points(risks[share])}" for share in (50, 80, 90, 100))
