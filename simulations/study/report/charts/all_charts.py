"""The charts of a study; their numbers are in its tables."""

from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from simulations.study.findings import Findings
from simulations.study.points import amount, shown
from simulations.study.ranking import best_alone
from simulations.study.report.charts.answers import coverage, referral
from simulations.study.report.charts.drawing import Look
from simulations.study.report.charts.groups import groups_chart
from simulations.study.report.charts.panels import by_site, reliability, roc
from simulations.study.report.charts.svg import Chart, as_chart, new_figure, page_style
from simulations.study.results import ArmResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Curve = list[ArmResult]

_AXIS, _LABEL = 2.6, 0.4
"""Inches that curves need at least, and that the label of each needs."""

_LEADER = {"arrowstyle": "-", "linewidth": 0.8, "relpos": (0.0, 0.5), "shrinkA": 2, "shrinkB": 2}
"""From the end of a curve to the left of its label."""


def draw(findings: Findings) -> list[Chart]:
    """Return the charts that a study has figures for."""
    charts = (_learning, roc, reliability, by_site, coverage, groups_chart, referral, _cost)
    look = Look(findings)
    with page_style():
        made = (make(findings, look) for make in charts)
        return [chart for chart in made if chart is not None]


def _learning(findings: Findings, look: Look) -> Chart | None:
    curves = _curves(findings)
    if not curves:
        return None
    figure, axes = new_figure(max(_AXIS, _LABEL * len(curves)) + 0.6)
    for alike in curves:
        members = alike[0]
        x, values = [_lesions(r) for r in members], [r.balanced for r in members]
        axes.plot(x, [100 * v.mean for v in values], **look.line(members[0]))
        lows, highs = [100 * v.low for v in values], [100 * v.high for v in values]
        axes.fill_between(x, lows, highs, color=look.colour(members[0]), alpha=0.12, lw=0)
    _label_ends(axes, findings, look, curves)
    sizes = sorted({round(_lesions(r)) for alike in curves for r in alike[0]})
    axes.set_xscale("log")
    axes.set_xticks(sizes, map(str, sizes))
    axes.minorticks_off()
    axes.set_xlabel("training lesions (logarithmic)")
    axes.set_ylabel("balanced accuracy, points")
    axes.grid()
    return as_chart(
        "Learning curves",
        "Bands are 95 % intervals.",
        "; ".join(_in_words(findings, alike) for alike in curves) + ".",
        figure,
    )


def _label_ends(
    axes: "Axes", findings: Findings, look: Look, curves: Sequence[Sequence[Curve]]
) -> None:
    """Write the name of each curve beside its end, one above the other."""
    ends = sorted(curves, key=lambda alike: alike[0][-1].balanced.mean)
    low, high = axes.get_ylim()
    step = _LABEL / max(_AXIS, _LABEL * len(curves)) * (high - low)
    heights = _apart([100 * alike[0][-1].balanced.mean for alike in ends], step, high)
    for alike, height in zip(ends, heights, strict=True):
        last = alike[0][-1]
        axes.annotate(
            f"{findings.names.routes[last.arm.route]}\n{_ways(findings, alike)}",
            (_lesions(last), 100 * last.balanced.mean),
            (1.06, height),
            textcoords=axes.get_yaxis_transform(),
            va="center",
            arrowprops={**_LEADER, "color": look.colour(last)},
        )


def _apart(heights: Sequence[float], step: float, top: float) -> list[float]:
    """Return ascending heights, near their own, a step apart at least and below the top."""
    placed = list(heights)
    for i in range(1, len(placed)):
        placed[i] = max(placed[i], placed[i - 1] + step)
    down = fmean(placed) - fmean(heights)
    limit = top - step / 2
    for i in reversed(range(len(placed))):
        placed[i] = min(placed[i] - down, limit)
        limit = placed[i] - step
    return placed


def _curves(findings: Findings) -> list[list[Curve]]:
    """Return each learning curve, by growing share of the lesions, with those identical to it."""
    kinds = dict.fromkeys(r.arm[:3] for r in findings.known)
    alike: list[list[Curve]] = []
    for kind in kinds:
        curve = sorted((r for r in findings.known if r.arm[:3] == kind), key=lambda r: r.arm.scale)
        if len(curve) < 2:
            continue
        same = next((group for group in alike if _identical(group[0], curve)), None)
        if same is None:
            alike.append([curve])
        else:
            same.append(curve)
    return alike


def _identical(first: Curve, second: Curve) -> bool:
    return (
        first[0].arm.route == second[0].arm.route
        and [r.arm.scale for r in first] == [r.arm.scale for r in second]
        and all(a.identical(b) for a, b in zip(first, second, strict=True))
    )


def _ways(findings: Findings, alike: Sequence[Curve]) -> str:
    return findings.names.ways([curve[-1] for curve in alike])


def _in_words(findings: Findings, alike: Sequence[Curve]) -> str:
    parts = (f"{_lesions(r):.0f} lesions {shown(r.balanced)}" for r in alike[0])
    route = findings.names.routes[alike[0][0].arm.route]
    return f"{route}, {_ways(findings, alike)}: {', '.join(parts)}"


def _lesions(result: ArmResult) -> float:
    return fmean(cell["training"]["lesions"] for cell in result.cells.values())


def _cost(findings: Findings, look: Look) -> Chart | None:
    """Draw the minutes of arms against their quality; identical arms differ in minutes."""
    alone = {best_alone(findings, route) for route in findings.study.routes}
    arms = [r for r in findings.full if not r.arm.site or r in alone]
    known = [(r, c.computing / 60) for r in arms if (c := findings.cost(r)) is not None]
    if not known:
        return None
    figure, axes = new_figure(3.6)
    for result, minutes in known:
        value = result.balanced
        bounds = [100 * value.low, 100 * value.high]
        axes.plot([minutes] * 2, bounds, color=look.colour(result), linewidth=1)
        axes.plot(minutes, 100 * value.mean, **look.point(result))
    _minutes(axes, [minutes for _, minutes in known])
    axes.set_xlabel("minutes for features and training (logarithmic)")
    axes.set_ylabel("balanced accuracy, points")
    axes.grid(axis="y")
    look.key(figure, [r for r, _ in known], lines=False)
    in_words = "; ".join(
        f"{findings.names.arm(r.arm)} {amount(m)} minutes, {shown(r.balanced)}" for r, m in known
    )
    note = "All sites one after the other on this machine; vertical lines are 95 % intervals."
    return as_chart("Cost against quality", note, f"{in_words}.", figure)


def _minutes(axes: "Axes", minutes: Sequence[float]) -> None:
    """Scale an axis by logarithms, with plain numbers at it."""
    axes.set_xscale("log")
    axes.margins(x=0.1)
    low, high = axes.get_xlim()
    steps = [factor * 10.0**power for power in range(-4, 7) for factor in (1, 2, 5)]
    ticks = [step for step in steps if low <= step <= high]
    axes.set_xticks(ticks, [f"{step:g}" for step in ticks])
    axes.minorticks_off()
    axes.set_xlim(low, high)
