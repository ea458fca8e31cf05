"""The report of a scenario: tables in Markdown, a chart, and the exact figures as JSON."""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from common.formats import estimate, markdown_table, rounded
from common.json_types import plain
from common.storage.whole_files import write_atomically
from common.synthetic_note import synthetic_note
from simulations.continual.measures import WayFigures
from simulations.continual.scenarios import Scenario
from simulations.continual.training import JOINT, Way
from simulations.evaluation.bounded import Bounded
from simulations.study.report.charts.svg import as_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARKDOWN_FILE, CHART_FILE, JSON_FILE = "continual.md", "continual.svg", "continual.json"

_TITLES = {
    "sites": "Sites join one after the other",
    "time": "Lesions arrive in five parts",
    "classes": "Diagnoses are added",
    "drift": "A site changes its camera",
}
_HEADER = (
    "way",
    "balanced accuracy at the end (95 %)",
    "minus joint (95 %)",
    "earlier groups minus joint (95 %)",
    "forgotten of earlier groups (95 %)",
    "a step before it arrives (95 %)",
    "rounds after the first step",
)
_NOTE = (
    "Balanced accuracy on held-out lesions. Intervals are over lesions, paired where two models "
    "are compared; each way is one training a step."
)


def write_report(
    out: Path,
    name: str,
    command: str,
    scenario: Scenario,
    ways: Mapping[str, Way],
    found: Mapping[str, WayFigures],
) -> str:
    """Write the report into ``out`` and return its text."""
    text = "\n\n".join(_parts(name, command, scenario, ways, found)) + "\n"
    write_atomically(out / MARKDOWN_FILE, text.encode())
    write_atomically(out / CHART_FILE, as_file(lambda: _chart(_TITLES[name], scenario, found)))
    figures = {
        "scenario": name,
        "command": command,
        "groups": list(scenario.names),
        "ways": {way: _named(vars(each)) for way, each in found.items()},
    }
    write_atomically(out / JSON_FILE, (json.dumps(plain(figures), indent=1) + "\n").encode())
    return text


def _parts(
    name: str,
    command: str,
    scenario: Scenario,
    ways: Mapping[str, Way],
    found: Mapping[str, WayFigures],
) -> Iterator[str]:
    yield f"# {_TITLES[name]}"
    yield from synthetic_note(scenario.dataset.synthetic)
    yield f"`{command}`"
    steps = (f"{number}. {group}" for number, group in enumerate(scenario.names, start=1))
    yield "\n".join(steps)
    yield markdown_table(_HEADER, [_row(way, each) for way, each in found.items()])
    yield f"{_NOTE} A diagnosis that is not told apart yet is left out of a step's figures."
    yield f"![Balanced accuracy on what has arrived, after each step]({CHART_FILE})"
    for way, each in found.items():
        yield f"**{way}**: {ways[way].words}. Balanced accuracy by step and group:"
        rows = [
            (f"after step {number}", *(rounded(value) for value in row))
            for number, row in enumerate(each.matrix, start=1)
        ]
        yield markdown_table(("", *scenario.names), rows)


def _row(way: str, each: WayFigures) -> tuple[str, ...]:
    compared = each.minus_joint, each.earlier_minus_joint
    return (
        way,
        _shown(each.overall, ".3f"),
        *("-" if way == JOINT else _shown(value, "+.3f") for value in compared),
        _shown(each.backward, "+.3f"),
        _shown(each.forward, ".3f"),
        str(each.rounds),
    )


def _shown(value: Bounded, layout: str) -> str:
    if math.isnan(value.value):
        return "-"
    return estimate(value.value, (value.low, value.high), layout)


def _chart(title: str, scenario: Scenario, found: Mapping[str, WayFigures]) -> "Figure":
    """Draw balanced accuracy on what has arrived after each step, a line for each way."""
    from matplotlib.figure import Figure

    steps = list(range(1, len(scenario.names) + 1))
    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axes = figure.subplots()
    for number, (way, each) in enumerate(found.items()):
        values = [100 * value.value for value in each.after_each]
        spread = [
            [100 * (value.value - value.low) for value in each.after_each],
            [100 * (value.high - value.value) for value in each.after_each],
        ]
        moved = [step + 0.05 * (number - (len(found) - 1) / 2) for step in steps]
        axes.errorbar(moved, values, yerr=spread, marker="osD^v"[number], capsize=2, label=way)
    axes.set_xticks(steps, [_wrapped(group) for group in scenario.names])
    axes.set_ylabel("balanced accuracy so far, points")
    axes.set_title(title)
    axes.grid(axis="y", linewidth=0.4)
    axes.legend(frameon=False)
    return figure


def _wrapped(text: str) -> str:
    return text.replace(", ", ",\n").replace(" by ", "\nby ").replace(" as ", "\nas ")


def _named(value: object) -> object:
    """Return figures in which a value and its interval stand by their names."""
    if isinstance(value, Bounded):
        return value._asdict()
    if isinstance(value, dict):
        return {key: _named(item) for key, item in value.items()}
    return [_named(item) for item in value] if isinstance(value, list) else value
