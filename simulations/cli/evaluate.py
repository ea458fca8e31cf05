"""``fedderm evaluate``: models of runs on the same lesions."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from common.data.dimensions import read_dimensions
from common.errors import ConfigError
from server.run.folder import model_file
from simulations.cli.data import Data
from simulations.cli.json_output import refuse_taken, write_figures
from simulations.cli.read_settings import Weights, read_settings


def evaluate(
    data: Data,
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN... [cache=FOLDER]",
            help="Folders of finished runs, the one to compare with first.",
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="New JSON file for the same figures, exact.")
    ] = None,
    every: Annotated[
        bool,
        typer.Option("--all", help="Test on every lesion of DIR, not on those held out."),
    ] = False,
    trained: Annotated[
        Literal["refuse", "leave-out"] | None,
        typer.Option(
            help="With --all: what becomes of lesions that a run trained on.", show_default="refuse"
        ),
    ] = None,
    trained_on: Annotated[
        list[Path] | None,
        typer.Option(
            help="With --all: folder of images trained on.", show_default="the runs' own sites"
        ),
    ] = None,
    matrix: Annotated[
        bool, typer.Option("--matrix", help="Show each run on the lesions of each site of DIR.")
    ] = False,
    by: Annotated[
        str | None,
        typer.Option(
            metavar="sex,age:40,60,...",
            help="Show each run by groups: sex, age, localization, site, dx_type, or two, sex*age.",
        ),
    ] = None,
    weights: Weights = None,
    without_metadata: Annotated[
        bool,
        typer.Option(
            "--without-metadata",
            help="Judge runs that use age, sex or place a second time, without them.",
        ),
    ] = False,
) -> None:
    """Evaluate the models of runs on the same test lesions of DIR; compare with the first.

    Diagnoses of DIR that the models do not know are counted apart. Images that a run trained on
    are found by their content; a copy that was encoded again is another image.
    """
    from simulations.cli import summary
    from simulations.evaluation.other_data import EveryLesion
    from simulations.evaluation.runs import evaluate_runs

    refuse_taken(out)
    files = {run: model_file(Path(run)) for run in runs if not run.startswith("cache=")}
    cache = read_settings([run for run in runs if run.startswith("cache=")], None).cache
    if (trained or trained_on) and not every:
        raise ConfigError("--trained and --trained-on are for all lesions of DIR; add --all")
    chosen = EveryLesion(trained or "refuse", trained_on or ()) if every else None
    dimensions = read_dimensions(by) if by is not None else ()
    judgement = evaluate_runs(
        data, files, cache, weights or (), chosen, dimensions, without_metadata
    )
    typer.echo(summary.evaluation(judgement, by_site=every or matrix))
    write_figures(out, {"data": str(data), **asdict(judgement)})
