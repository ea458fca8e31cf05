"""The charts of a study that have a panel for each diagnosis, each arm or each route."""

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from common.arrays import Floats
from common.task import Task
from simulations.study.findings import Findings, groups
from simulations.study.names import diagnosis, sentence
from simulations.study.points import in_points, shown
from simulations.study.report.charts.drawing import Look, drawn, identities
from simulations.study.report.charts.svg import GRID, Chart, as_chart, panel_grid
from simulations.study.results import FALSE_POSITIVE_RATES, ArmResult, Reliability

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PANEL_LETTERS = 26


def roc(findings: Findings, look: Look) -> Chart | None:
    """Draw the ROC curves of each diagnosis."""
    arms = drawn(findings.whole)
    if not arms:
        return None
    figure, panels = panel_grid(findings.task.n_classes, 1.65)
    for panel, dx in zip(panels, findings.task.codes, strict=True):
        _roc_panel(panel, findings.task, dx, arms, look)
    look.key(figure, arms)
    figure.supxlabel("100 - specificity, points")
    figure.supylabel("sensitivity, points")
    in_words = "; ".join(
        f"{findings.names.arm(r.arm)}: "
        + ", ".join(
            f"{diagnosis(findings.task, dx)} {in_points(r.metrics[f'auc/{dx}'].mean)}"
            for dx in r.roc
        )
        for r in arms
    )
    note = f"Means over folds. {identities(findings, findings.whole)}".strip()
    return as_chart("ROC by diagnosis", note, f"Areas under the curves. {in_words}.", figure)


def _roc_panel(panel: "Axes", task: Task, dx: str, arms: Sequence[ArmResult], look: Look) -> None:
    _square(panel)
    for number, result in enumerate(arms):
        if dx in result.roc:
            panel.plot(
                100 * FALSE_POSITIVE_RATES,
                100 * result.roc[dx],
                **look.line(result),
                linewidth=1.2,
                markevery=[3 + 3 * number % 90],
            )
    panel.set_title(sentence(diagnosis(task, dx)))


def reliability(findings: Findings, look: Look) -> Chart | None:
    """Draw how often the most likely class is right; None where no arm tells."""
    alike = [(group, bins) for group in groups(findings.whole) if (bins := group[0].most_likely)]
    if not alike:
        return None
    figure, panels = panel_grid(len(alike), 2.15)
    for panel, (group, bins) in zip(panels, alike, strict=True):
        confidence, right, sizes = _points_of(bins)
        style = look.line(group[0])
        _square(panel)
        panel.plot(confidence, right, color=style["color"], linestyle=style["linestyle"])
        panel.scatter(confidence, right, s=sizes, color=style["color"], marker=style["marker"])
        panel.set_title(_panel_title(findings, group))
    figure.supxlabel("probability of the most likely class, points")
    figure.supylabel("share that is right, points")
    in_words = "; ".join(
        f"{findings.names.alike(group)} {shown(group[0].metrics['most_likely_calibration_error'])}"
        for group, _ in alike
    )
    return as_chart(
        "Reliability",
        "On the diagonal probability and share agree; marks are as large as they are frequent. "
        "The most likely class has the largest probability; the diagnosis given may be another, "
        "for a decision rule may favour rare classes.",
        f"Calibration errors of the most likely class, means over folds: {in_words}.",
        figure,
    )


def by_site(findings: Findings, look: Look) -> Chart | None:
    """Draw how good arms are on the images of each source, a panel for each route."""
    arms = [r for r in drawn(findings.whole) if r.sites]
    if not arms:
        return None
    sites = list(dict.fromkeys(site for r in arms for site in r.sites))
    routes = list(dict.fromkeys(r.arm.route for r in arms))
    members = [[r for r in arms if r.arm.route == route] for route in routes]
    most = max(map(len, members))
    figure, panels = panel_grid(len(routes), len(sites) * (0.15 * most + 0.15) + 0.4)
    for panel, route, own in zip(panels, routes, members, strict=True):
        _site_panel(panel, own, sites, 0.8 / most, look)
        panel.set_title(findings.names.routes[route])
    look.key(figure, arms, lines=False)
    figure.supxlabel("balanced accuracy, points")
    note = f"Lines are 95 % intervals. {identities(findings, findings.whole)}".strip()
    return as_chart("By site", note, _sites_in_words(findings, arms, sites), figure)


def _site_panel(
    panel: "Axes", arms: Sequence[ArmResult], sites: Sequence[str], step: float, look: Look
) -> None:
    """Draw the arms of a route, those at one site a step apart from each other."""
    for number, result in enumerate(arms):
        shift = ((len(arms) - 1) / 2 - number) * step
        for y, site in enumerate(reversed(sites)):
            if site in result.sites:
                value = result.sites[site].metrics["balanced_accuracy"]
                bounds = [100 * value.low, 100 * value.high]
                panel.plot(bounds, [y + shift] * 2, color=look.colour(result), linewidth=1)
                panel.plot(100 * value.value, y + shift, **look.point(result))
    panel.set_yticks(range(len(sites)), reversed(sites))
    panel.grid(axis="x")


def _square(panel: "Axes") -> None:
    """Draw the diagonal of a panel whose sides are points."""
    panel.plot([0, 100], [0, 100], color=GRID, zorder=0)
    panel.set_xticks([0, 50, 100])
    panel.set_yticks([0, 50, 100])


def _sites_in_words(findings: Findings, arms: Sequence[ArmResult], sites: Sequence[str]) -> str:
    parts = []
    for site in sites:
        values = (
            f"{findings.names.arm(r.arm)} {shown(r.sites[site].metrics['balanced_accuracy'])}"
            for r in arms
            if site in r.sites
        )
        parts.append(f"{site}: {', '.join(values)}")
    return f"{'; '.join(parts)}."


def _points_of(bins: Reliability) -> tuple[Floats, Floats, Floats]:
    """Return confidence and share that is right of the bins with images, and sizes of marks."""
    known = bins.images > 0
    images = bins.images[known]
    confidence, right = bins.confidence[known] / images, bins.right[known] / images
    return 100 * confidence, 100 * right, 60 * images / images.max() + 5


def _panel_title(findings: Findings, group: Sequence[ArmResult]) -> str:
    ways = textwrap.fill(findings.names.ways(group), _PANEL_LETTERS)
    return f"{findings.names.routes[group[0].arm.route]}\n{ways}"
