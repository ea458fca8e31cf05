"""``fedderm gate``: whether a new model may replace an old one."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from common.answers.verdict import REFUSED
from common.config.run import RunConfig
from common.data.dimensions import read_dimensions
from common.storage.whole_files import write_atomically
from common.synthetic_note import synthetic_note
from server.run.card_gate import gate_lines
from server.run.folder import model_file
from simulations.cli.data import Data
from simulations.cli.json_output import refuse_taken, write_figures
from simulations.cli.read_settings import Weights

_CACHE = RunConfig().cache


def gate(
    old: Annotated[Path, typer.Argument(metavar="OLD", help="Folder of the run in use.")],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="Folder of the run to replace it.")],
    data: Data,
    margin: Annotated[
        float, typer.Option(min=0, max=1, help="What may be lost of each figure, in shares.")
    ] = 0.02,
    least: Annotated[
        int, typer.Option(min=1, help="Lesions from which on a site or group is judged.")
    ] = 100,
    by: Annotated[
        str | None,
        typer.Option(metavar="sex,age:40,60,...", help="Judge these groups, too, beside sites."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="New JSON file for the same figures, exact.")
    ] = None,
    chart: Annotated[Path | None, typer.Option(help="New SVG file: the changes, drawn.")] = None,
    weights: Weights = None,
    cache: Annotated[Path, typer.Option(help="Folder for features, and hashes of pictures.")] = (
        _CACHE
    ),
) -> None:
    """Tell whether a new model may replace the old one, on lesions of DIR that both held out.

    Refused, with exit code 3, is a model that loses more than the margin of balanced accuracy,
    melanoma sensitivity or the coverage of sets over all lesions, or is shown to lose it at a site
    or in a group.
    """
    from simulations.evaluation import replacement
    from simulations.study.report.charts.gate import gate_chart

    refuse_taken(out)
    refuse_taken(chart)
    files = model_file(old), model_file(new)
    dimensions = read_dimensions(by) if by is not None else ()
    found = replacement.compare(data, *files, cache, weights or (), dimensions, margin, least)
    values = asdict(found)
    about = (
        f"{found.images} images of {found.lesions} lesions; intervals are paired over lesions, and "
        "hold together."
    )
    lines = gate_lines({**values, "reason": found.reason})
    typer.echo("\n".join([*synthetic_note(found.synthetic), about, *lines]))
    write_figures(out, {"data": str(data), "old": str(old), "new": str(new), **values})
    if chart is not None:
        write_atomically(chart, gate_chart(found))
    if found.reason:
        raise typer.Exit(REFUSED)
