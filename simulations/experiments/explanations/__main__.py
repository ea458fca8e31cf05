"""Check a run's evidence maps: ``python -m simulations.experiments.explanations DATA RUN``."""

from pathlib import Path
from typing import Annotated

import typer

from common import command_line
from simulations.experiments.explanations.check import check
from simulations.experiments.explanations.tables import tables


def main(
    data: Annotated[Path, typer.Argument(help="Images that the run was trained on, with masks.")],
    run: Annotated[Path, typer.Argument(help="Folder of the run.")],
    images: Annotated[int, typer.Option(help="Test images, one a lesion.", min=1)] = 210,
    seed: Annotated[int, typer.Option(help="Seed of the images, orders and intervals.")] = 0,
) -> None:
    """Print what the checks say of a run's evidence maps, as Markdown."""
    for table in tables(list(check(data, run, images, seed)), seed):
        typer.echo(f"{table}\n")


if __name__ == "__main__":
    command_line.run(lambda: typer.run(main))
