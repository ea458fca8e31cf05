"""``fedderm privacy unlearning``: whether withdrawn lesions can still be told from others."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from common.config.run import RunConfig
from common.formats import estimate, markdown_table
from common.synthetic_note import synthetic_note
from common.text import printable
from simulations.cli.data import Data
from simulations.cli.json_output import refuse_taken, write_figures
from simulations.cli.read_settings import Weights

if TYPE_CHECKING:
    from simulations.audit.unlearning import Figure, Unlearning

_CACHE = RunConfig().cache


def unlearning(
    before: Annotated[
        Path, typer.Argument(metavar="BEFORE", help="Folder of the run with the lesions.")
    ],
    after: Annotated[Path, typer.Argument(metavar="AFTER", help="Folder of the run without them.")],
    data: Data,
    reference: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="Run that was trained from nothing without them."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="New JSON file for the same figures, exact.")
    ] = None,
    weights: Weights = None,
    cache: Annotated[Path, typer.Option(help="Folder for features.")] = _CACHE,
) -> None:
    """Attack two runs: was a withdrawn lesion trained on? Before it may show, after it must not.

    Withdrawn is what BEFORE was trained on and AFTER was not. These lesions of DIR are compared
    with lesions of the same site and diagnosis that no run has seen.
    """
    from simulations.audit.unlearning import attack_withdrawn

    refuse_taken(out)
    found = attack_withdrawn(data, before, after, reference, cache, weights or ())
    typer.echo(_report(found))
    runs = {"before": str(before), "after": str(after), "reference": str(reference or "")}
    write_figures(out, {"data": str(data), **runs, **asdict(found)})


def _report(found: "Unlearning") -> str:
    from simulations.audit.unlearning import LEAST

    sites = ", ".join(f"{n} of {site or 'no named site'}" for site, n in found.by_site.items())
    lines = [
        *synthetic_note(found.synthetic),
        printable(f"Withdrawn lesions: {sites}; {found.unseen} others that no run has seen."),
        "",
        markdown_table(("attack", "model", "AUC (95 %)", "chance"), map(_row, found.figures)),
        "",
    ]
    if found.alone:
        lines.append(
            f"{found.alone} more are left out: no other lesion of the same site and diagnosis."
        )
    if found.shadows:
        lines.append(f"The likelihood ratio is by {found.shadows} shadow classifiers.")
    if found.withdrawn < LEAST:
        lines.append(f"Of fewer than {LEAST} lesions an interval would say nothing.")
    elif told := found.told_apart:
        lines.append(f"The model after TELLS THEM APART from lesions it never saw: {told[0]}.")
    else:
        lines.append("The model after does not tell them from lesions it never saw.")
    return "\n".join(lines)


def _row(figure: "Figure") -> tuple[str, str, str, str]:
    from simulations.audit.unlearning import MINUS

    value, low, high = figure.value
    chance = "0" if figure.model == MINUS else "0.5"
    return figure.attack, figure.model, estimate(value, (low, high)), chance
