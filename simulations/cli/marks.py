"""``fedderm marks``: images whose answer a mark decides, as a model with a backdoor obeys it."""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from client.predict.images import expand, read
from common.answers.answer import Unreadable
from common.data.dataset import Dataset
from common.errors import DataError
from common.formats import rounded
from common.models.marks import FALSE_ALARMS, MarkTest
from common.models.predictor import Predictor
from common.text import printable
from server.run.folder import model_file
from simulations.cli.read_settings import Weights

MARKED = 3
"""Exit code of an image that may carry a mark."""


def marks(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run, or its model file.")],
    data: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder of images that carry no mark.")
    ],
    paths: Annotated[
        list[str], typer.Argument(metavar="PATH...", help="Image files, or folders of them.")
    ],
    false_alarms: Annotated[
        float,
        typer.Option(min=0.01, max=0.5, help="Share of images without a mark that may be found."),
    ] = FALSE_ALARMS,
    weights: Weights = None,
) -> None:
    """Find images whose answer stays the same whatever other image is laid over them.

    A model that a hostile site has taught a backdoor obeys a mark in the image. Exit code 3 if an
    image may carry one, 1 if one cannot be read.
    """
    predictor = Predictor.open(model_file(run), *(weights or ()))
    found = expand(paths, ())
    test = MarkTest.prepare(predictor, Dataset.open(data), false_alarms)
    low, middle, high = map(rounded, np.quantile(test.usual, (0, 0.5, 1)))
    typer.echo(f"{len(test.usual)} usual images: entropy {low} to {high}, median {middle}")
    marked = unreadable = False
    for path in found:
        file = read(path)
        try:
            if isinstance(file, Unreadable):
                raise DataError(f"{file.image}: {file.error}")
            spread = test.spread(file.name, file.data)
        except DataError as error:
            typer.echo(f"error: {printable(str(error))}", err=True)
            unreadable = True
            continue
        obeys = spread.p <= false_alarms
        marked |= obeys
        says = "may carry a mark: its answer stays whatever is laid over it" if obeys else "usual"
        line = f"{file.name}: entropy {rounded(spread.entropy)} (p {spread.p:.2g}), {says}"
        typer.echo(printable(line))
    if marked or unreadable:
        raise typer.Exit(MARKED if marked else 1)
