"""The charts of a study; their numbers are in its tables."""

from statistics import fmean

from common.formats import estimate
from common.task import DIAGNOSES, N_CLASSES
from simulations.study.findings import Findings
from simulations.study.report.svg import (
    GRID,
    SERIES,
    Chart,
    as_chart,
    legend_in_free_panel,
    new_figure,
    page_style,
    panel_grid,
    series_colour,
)
from simulations.study.results import FALSE_POSITIVE_RATES, ArmResult

_STYLES = ("-", "--", ":", "-.")
_MARKERS = "osD^vP"


def draw(findings: Findings) -> list[Chart]:
    """Return the charts that a study has figures for."""
    charts = (_accuracy, _learning, _roc, _reliability, _cost, _forest)
    with page_style():
        return [chart for chart in (make(findings) for make in charts) if chart is not None]


def _accuracy(findings: Findings) -> Chart | None:
    arms = findings.full
    figure, axes = new_figure(0.26 * len(arms) + 0.9)
    for y, result in enumerate(reversed(arms)):
        value = result.metrics["balanced_accuracy"]
        colour = _colour(findings, result)
        axes.plot([value.low, value.high], [y, y], color=colour, linewidth=2)
        axes.plot(value.mean, y, "o", color=colour, markersize=6)
    axes.set_yticks(range(len(arms)), [r.arm.name for r in reversed(arms)])
    axes.set_xlabel("balanced accuracy, 95 % interval")
    axes.grid(axis="x")
    in_words = "; ".join(f"{r.arm.name} {_interval(r)}" for r in arms)
    return as_chart("Balanced accuracy", f"Dots with intervals: {in_words}.", figure)


def _learning(findings: Findings) -> Chart | None:
    curves = _curves(findings)
    if not curves:
        return None
    figure, axes = new_figure(3.0)
    in_words: list[str] = []
    sizes: set[int] = set()
    for number, members in enumerate(curves):
        x = [fmean(c["training"]["lesions"] for c in r.cells.values()) for r in members]
        sizes |= {round(n) for n in x}
        values = [r.metrics["balanced_accuracy"] for r in members]
        lows, highs = [v.low for v in values], [v.high for v in values]
        colour, name = _colour(findings, members[0]), members[-1].arm.name
        style = _STYLES[number // SERIES % len(_STYLES)]
        axes.plot(x, [v.mean for v in values], f"o{style}", color=colour, label=name)
        axes.fill_between(x, lows, highs, color=colour, alpha=0.15, lw=0)
        points = (f"{n:.0f} lesions {v.mean:.3f}" for n, v in zip(x, values, strict=True))
        in_words.append(f"{name}: {', '.join(points)}")
    axes.set_xscale("log")
    axes.set_xticks(sorted(sizes), map(str, sorted(sizes)))
    axes.minorticks_off()
    axes.set_xlabel("training lesions (logarithmic)")
    axes.set_ylabel("balanced accuracy")
    axes.grid()
    axes.legend()
    return as_chart("Learning curves", f"Lines with 95 % bands. {'; '.join(in_words)}.", figure)


def _roc(findings: Findings) -> Chart | None:
    arms = _focus(findings)
    curves = [(result, result.roc()) for result in arms]
    figure, panels = panel_grid(N_CLASSES, 1.9)
    for panel, dx in zip(panels, DIAGNOSES, strict=False):
        panel.plot([0, 1], [0, 1], color=GRID)
        for number, (result, curve) in enumerate(curves):
            if dx in curve:
                panel.plot(
                    FALSE_POSITIVE_RATES,
                    curve[dx],
                    _STYLES[number % len(_STYLES)],
                    color=_colour(findings, result),
                    label=result.arm.name,
                )
        panel.set_title(dx)
    legend_in_free_panel(figure, panels, N_CLASSES)
    figure.supxlabel("1 - specificity")
    figure.supylabel("sensitivity")
    in_words = "; ".join(
        f"{r.arm.name}: " + ", ".join(f"{dx} {r.metrics[f'auc/{dx}'].mean:.3f}" for dx in curve)
        for r, curve in curves
    )
    return as_chart(
        "ROC by diagnosis", f"Curves, mean over folds. Areas under them: {in_words}.", figure
    )


def _reliability(findings: Findings) -> Chart | None:
    arms = _focus(findings)
    figure, panels = panel_grid(len(arms), 2.2)
    for panel, result in zip(panels, arms, strict=False):
        counts = result.counts
        known = counts.calibration[0] > 0
        confidence = counts.confidence[known] / counts.calibration[0][known]
        true = counts.calibration[1][known] / counts.calibration[0][known]
        sizes = 60 * counts.calibration[0][known] / counts.calibration[0].max() + 4
        panel.plot([0, 1], [0, 1], color=GRID)
        panel.plot(confidence, true, color=_colour(findings, result))
        panel.scatter(confidence, true, s=sizes, color=_colour(findings, result))
        panel.set_title(result.arm.name)
    for panel in panels[len(arms) :]:
        panel.axis("off")
    figure.supxlabel("confidence")
    figure.supylabel("share that is right")
    in_words = "; ".join(f"{r.arm.name} {r.metrics['calibration_error'].mean:.3f}" for r in arms)
    return as_chart(
        "Reliability",
        f"Confidence against the share that is right; on the diagonal they agree, dots are as "
        f"large as they are frequent. Expected calibration errors: {in_words}.",
        figure,
    )


def _cost(findings: Findings) -> Chart | None:
    costs = ((r, findings.cost(r)) for r in findings.full)
    known = [(r, cost.computing) for r, cost in costs if cost is not None]
    if not known:
        return None
    figure, axes = new_figure(3.8)
    seen: set[tuple[str, str]] = set()
    for result, cost in known:
        pair = (result.arm.route, result.arm.spread)
        value = result.metrics["balanced_accuracy"]
        axes.errorbar(
            cost,
            value.mean,
            yerr=[[max(0, value.mean - value.low)], [max(0, value.high - value.mean)]],
            fmt=_marker(findings, result),
            color=_colour(findings, result),
            label=None if pair in seen else " ".join(pair),
        )
        seen.add(pair)
    axes.set_xscale("log")
    axes.set_xlabel("seconds for features and training (logarithmic)")
    axes.set_ylabel("balanced accuracy")
    axes.grid()
    figure.legend(loc="outside upper center", ncols=2)
    in_words = "; ".join(f"{r.arm.name} {s:.1f} s, {_interval(r)}" for r, s in known)
    return as_chart("Cost against quality", f"Dots: {in_words}.", figure)


def _forest(findings: Findings) -> Chart | None:
    arms = [r for r in _focus(findings) if r.sites]
    if not arms:
        return None
    sites = list(dict.fromkeys(site for r in arms for site in r.sites))
    figure, axes = new_figure(len(sites) * (0.22 * len(arms) + 0.25) + 1.1)
    ticks, in_words = [], []
    for block, site in enumerate(reversed(sites)):
        base = block * (len(arms) + 1.2)
        for number, result in enumerate(reversed(arms)):
            if site not in result.sites:
                continue
            value = result.sites[site].metrics["balanced_accuracy"]
            y, colour = base + number, _colour(findings, result)
            axes.plot([value.low, value.high], [y, y], color=colour, linewidth=1.5)
            marker = _marker(findings, result)
            first = block == len(sites) - 1
            label = result.arm.name if first else None
            axes.plot(value.value, y, marker, color=colour, label=label, ls="")
        ticks.append((base + (len(arms) - 1) / 2, site))
        shown = (r for r in arms if site in r.sites)
        parts = (f"{r.arm.name} {_at(r, site)}" for r in shown)
        in_words.append(f"{site}: {', '.join(parts)}")
    axes.set_yticks([y for y, _ in ticks], [site for _, site in ticks])
    axes.set_xlabel("balanced accuracy, 95 % interval")
    axes.grid(axis="x")
    figure.legend(loc="outside upper center", ncols=1, reverse=True)
    return as_chart("By site", f"Forest plot. {'; '.join(reversed(in_words))}.", figure)


def _focus(findings: Findings) -> list[ArmResult]:
    """Return the arms with sites or data in one place, of whom not each site is alone."""
    return [r for r in findings.full if not r.arm.site]


def _curves(findings: Findings) -> list[list[ArmResult]]:
    """Return the arms of each learning curve, by growing share of the lesions."""
    trained = [r for r in findings.arms if r.resampled]
    kinds = dict.fromkeys(r.arm[:3] for r in trained)
    groups = ([r for r in trained if r.arm[:3] == kind] for kind in kinds)
    return [sorted(group, key=lambda r: r.arm.scale) for group in groups if len(group) > 1]


def _interval(result: ArmResult) -> str:
    value = result.metrics["balanced_accuracy"]
    return estimate(value.mean, (value.low, value.high))


def _at(result: ArmResult, site: str) -> str:
    value, *bounds = result.sites[site].metrics["balanced_accuracy"]
    return estimate(value, bounds)


def _colour(findings: Findings, result: ArmResult) -> str:
    number = list(findings.study.routes).index(result.arm.route)
    return series_colour(number)


def _marker(findings: Findings, result: ArmResult) -> str:
    number = list(findings.study.spreads).index(result.arm.spread)
    return _MARKERS[number % len(_MARKERS)]
