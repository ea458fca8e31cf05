"""The charts of a study as SVG that takes its colours from the page around it."""

import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from common.data.dataset import DIAGNOSES
from common.formats import estimate
from simulations.study.findings import Findings
from simulations.study.results import FALSE_POSITIVE_RATES, ArmResult

_INK, _GRID = "#00000a", "#00000b"
SERIES = 6
"""Colours that a page has for routes."""

_COLOURS = {
    _INK: "currentColor",
    _GRID: "var(--grid)",
    **{f"#0000{n + 16:02x}": f"var(--series-{n})" for n in range(SERIES)},
}
"""What matplotlib draws with, and what the page is told instead."""

_WIDTH = 4.6
_STYLES = ("-", "--", ":", "-.")
_MARKERS = "osD^vP"


@dataclass(frozen=True)
class Chart:
    """A drawing and what it shows, for who cannot see it; its numbers are in the tables."""

    title: str
    alternative: str
    svg: str


def draw(findings: Findings) -> list[Chart]:
    """Return the charts that a study has figures for."""
    charts = (_accuracy, _learning, _roc, _reliability, _cost, _forest)
    with _style():
        return [chart for chart in (make(findings) for make in charts) if chart is not None]


def _accuracy(findings: Findings) -> Chart | None:
    arms = findings.full
    figure, axes = _figure(0.26 * len(arms) + 0.9)
    for y, result in enumerate(reversed(arms)):
        value = result.metrics["balanced_accuracy"]
        colour = _colour(findings, result)
        axes.plot([value.low, value.high], [y, y], color=colour, linewidth=2)
        axes.plot(value.mean, y, "o", color=colour, markersize=6)
    axes.set_yticks(range(len(arms)), [r.arm.name for r in reversed(arms)])
    axes.set_xlabel("balanced accuracy, 95 % interval")
    axes.grid(axis="x")
    told = "; ".join(f"{r.arm.name} {_interval(r)}" for r in arms)
    return _chart("Balanced accuracy", f"Dots with intervals: {told}.", figure)


def _learning(findings: Findings) -> Chart | None:
    curves = {
        key: sorted(members, key=lambda r: r.arm.scale)
        for key, members in _grouped([r for r in findings.arms if r.resampled], lambda r: r.arm[:3])
        if len(members) > 1
    }
    if not curves:
        return None
    figure, axes = _figure(3.0)
    told: list[str] = []
    seen: list[float] = []
    for number, members in enumerate(curves.values()):
        x = [fmean(c["training"]["lesions"] for c in r.cells.values()) for r in members]
        seen += x
        values = [r.metrics["balanced_accuracy"] for r in members]
        colour = _colour(findings, members[0])
        name = members[-1].arm.name
        axes.plot(x, [v.mean for v in values], "o-", color=colour, label=name)
        axes.fill_between(
            x, [v.low for v in values], [v.high for v in values], color=colour, alpha=0.15, lw=0
        )
        axes.lines[-1].set_linestyle(_STYLES[number // SERIES % len(_STYLES)])
        points = ", ".join(f"{n:.0f} lesions {v.mean:.3f}" for n, v in zip(x, values, strict=True))
        told.append(f"{name}: {points}")
    axes.set_xscale("log")
    axes.set_xticks(ticks := sorted({round(n) for n in seen}), map(str, ticks))
    axes.minorticks_off()
    axes.set_xlabel("training lesions (logarithmic)")
    axes.set_ylabel("balanced accuracy")
    axes.grid()
    axes.legend()
    return _chart("Learning curves", f"Lines with 95 % bands. {'; '.join(told)}.", figure)


def _roc(findings: Findings) -> Chart | None:
    arms = _focus(findings)
    curves = [(result, result.roc()) for result in arms]
    figure, panels = _panels(len(DIAGNOSES), 1.9)
    for panel, dx in zip(panels, DIAGNOSES, strict=False):
        panel.plot([0, 1], [0, 1], color=_GRID)
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
    _key(figure, panels, len(DIAGNOSES))
    figure.supxlabel("1 - specificity")
    figure.supylabel("sensitivity")
    told = "; ".join(
        f"{r.arm.name}: " + ", ".join(f"{dx} {r.metrics[f'auc/{dx}'].mean:.3f}" for dx in curve)
        for r, curve in curves
    )
    return _chart("ROC by diagnosis", f"Curves, mean over folds. Areas under them: {told}.", figure)


def _reliability(findings: Findings) -> Chart | None:
    arms = _focus(findings)
    figure, panels = _panels(len(arms), 2.2)
    for panel, result in zip(panels, arms, strict=False):
        counts = result.counts
        known = counts.calibration[0] > 0
        said = counts.confidence[known] / counts.calibration[0][known]
        true = counts.calibration[1][known] / counts.calibration[0][known]
        sizes = 60 * counts.calibration[0][known] / counts.calibration[0].max() + 4
        panel.plot([0, 1], [0, 1], color=_GRID)
        panel.plot(said, true, color=_colour(findings, result))
        panel.scatter(said, true, s=sizes, color=_colour(findings, result))
        panel.set_title(result.arm.name)
    for panel in panels[len(arms) :]:
        panel.axis("off")
    figure.supxlabel("confidence")
    figure.supylabel("share that is right")
    told = "; ".join(f"{r.arm.name} {r.metrics['calibration_error'].mean:.3f}" for r in arms)
    return _chart(
        "Reliability",
        f"Confidence against the share that is right; on the diagonal they agree, dots are as "
        f"large as they are frequent. Expected calibration errors: {told}.",
        figure,
    )


def _cost(findings: Findings) -> Chart | None:
    costs = ((r, findings.cost(r)) for r in findings.full)
    known = [(r, cost.computing) for r, cost in costs if cost is not None]
    if not known:
        return None
    figure, axes = _figure(3.8)
    spreads = list(findings.study.spreads)
    seen: set[tuple[str, str]] = set()
    for result, cost in known:
        pair = (result.arm.route, result.arm.spread)
        value = result.metrics["balanced_accuracy"]
        axes.errorbar(
            cost,
            value.mean,
            yerr=[[max(0, value.mean - value.low)], [max(0, value.high - value.mean)]],
            fmt=_MARKERS[spreads.index(result.arm.spread) % len(_MARKERS)],
            color=_colour(findings, result),
            label=None if pair in seen else " ".join(pair),
        )
        seen.add(pair)
    axes.set_xscale("log")
    axes.set_xlabel("seconds for features and training (logarithmic)")
    axes.set_ylabel("balanced accuracy")
    axes.grid()
    figure.legend(loc="outside upper center", ncols=2)
    told = "; ".join(f"{r.arm.name} {s:.1f} s, {_interval(r)}" for r, s in known)
    return _chart("Cost against quality", f"Dots: {told}.", figure)


def _forest(findings: Findings) -> Chart | None:
    arms = [r for r in _focus(findings) if r.sites]
    if not arms:
        return None
    sites = list(dict.fromkeys(site for r in arms for site in r.sites))
    figure, axes = _figure(len(sites) * (0.22 * len(arms) + 0.25) + 1.1)
    ticks, told = [], []
    for block, site in enumerate(reversed(sites)):
        base = block * (len(arms) + 1.2)
        for number, result in enumerate(reversed(arms)):
            if site not in result.sites:
                continue
            value = result.sites[site].metrics["balanced_accuracy"]
            y, colour = base + number, _colour(findings, result)
            axes.plot([value.low, value.high], [y, y], color=colour, linewidth=1.5)
            marker = _MARKERS[list(findings.study.spreads).index(result.arm.spread)]
            first = block == len(sites) - 1
            label = result.arm.name if first else None
            axes.plot(value.value, y, marker, color=colour, label=label, ls="")
        ticks.append((base + (len(arms) - 1) / 2, site))
        shown = (r for r in arms if site in r.sites)
        parts = (f"{r.arm.name} {_at(r, site)}" for r in shown)
        told.append(f"{site}: {', '.join(parts)}")
    axes.set_yticks([y for y, _ in ticks], [site for _, site in ticks])
    axes.set_xlabel("balanced accuracy, 95 % interval")
    axes.grid(axis="x")
    figure.legend(loc="outside upper center", ncols=1, reverse=True)
    return _chart("By site", f"Forest plot. {'; '.join(reversed(told))}.", figure)


def _focus(findings: Findings) -> list[ArmResult]:
    """Return the arms with sites or data in one place, of whom not each site is alone."""
    return [r for r in findings.full if not r.arm.site]


def _grouped(
    items: Sequence[ArmResult], key: Callable[[ArmResult], Any]
) -> Iterator[tuple[Any, list[ArmResult]]]:
    for value in dict.fromkeys(map(key, items)):
        yield value, [item for item in items if key(item) == value]


def _interval(result: ArmResult) -> str:
    value = result.metrics["balanced_accuracy"]
    return estimate(value.mean, (value.low, value.high))


def _at(result: ArmResult, site: str) -> str:
    value, *bounds = result.sites[site].metrics["balanced_accuracy"]
    return estimate(value, bounds)


def _colour(findings: Findings, result: ArmResult) -> str:
    number = list(findings.study.routes).index(result.arm.route)
    return f"#0000{number % SERIES + 16:02x}"


def _figure(height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    return figure, figure.subplots()


def _panels(number: int, height: float) -> tuple[Any, list[Any]]:
    """Return panels, two a row, at least as many as asked for."""
    from matplotlib.figure import Figure

    rows = (number + 1) // 2
    figure = Figure(figsize=(_WIDTH, height * rows + 0.3), layout="constrained")
    grid = figure.subplots(rows, 2, sharex=True, sharey=True, squeeze=False)
    return figure, list(grid.ravel())


def _key(figure: Any, panels: Sequence[Any], used: int) -> None:
    """Put the legend into the first panel that is free, else below."""
    handles, labels = panels[0].get_legend_handles_labels()
    for panel in panels[used:]:
        panel.axis("off")
    if used < len(panels):
        panels[used].legend(handles, labels, loc="center")
    else:
        figure.legend(handles, labels, loc="outside lower center")


@contextmanager
def _style() -> Iterator[None]:
    import matplotlib

    with matplotlib.rc_context(
        {
            "text.color": _INK,
            "axes.edgecolor": _INK,
            "axes.labelcolor": _INK,
            "xtick.color": _INK,
            "ytick.color": _INK,
            "grid.color": _GRID,
            "grid.linewidth": 0.6,
            "figure.facecolor": "none",
            "axes.facecolor": "none",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlesize": 9,
            "axes.labelsize": 9,
            "figure.labelsize": 9,
            "font.size": 9,
            "legend.frameon": False,
            "legend.fontsize": 8,
            "svg.fonttype": "none",
            "svg.hashsalt": "fedderm",
        }
    ):
        yield


def _chart(title: str, alternative: str, figure: Any) -> Chart:
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :]
    for drawn, told in _COLOURS.items():
        svg = svg.replace(drawn, told)
    svg = _prefixed(svg, re.sub(r"\W+", "-", title.lower()))
    # Its size is the page's; what it shows is said by the figure around it.
    svg = re.sub(r'width="[\d.]+pt" height="[\d.]+pt" ', "", svg, count=1)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    return Chart(title, alternative, svg)


def _prefixed(svg: str, prefix: str) -> str:
    """Make ids unique in a page with several drawings, and drop those that nobody uses."""
    used = set(re.findall(r'(?:url\(#|href="#)([\w-]+)', svg))

    def rename(found: re.Match[str]) -> str:
        name = found[1]
        return f' id="{prefix}-{name}"' if name in used else ""

    svg = re.sub(r' id="([^"]+)"', rename, svg)
    return re.sub(r'(url\(#|href="#)', rf"\g<1>{prefix}-", svg)
