"""``fedderm label``: a site's images without a diagnosis, with those that a model is sure of."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from client.predict.pseudo_labels import SHARE, pseudo_labelled
from common.config.run import RunConfig
from common.data.dataset import Dataset
from common.errors import DataError
from common.formats import markdown_table
from common.models.file import load_model
from common.storage.whole_files import owned, whole_folder
from common.text import printable
from server.run.folder import model_file
from simulations.cli.data import Data
from simulations.cli.read_settings import Weights
from simulations.data.partition import write_site

_CACHE = RunConfig().cache


def label(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run, or its model file.")],
    data: Data,
    out: Annotated[Path, typer.Option(help="New folder for the images with the new table.")],
    share: Annotated[
        float,
        typer.Option(min=0, max=1, help="Share of each diagnosis's lesions, the surest first."),
    ] = SHARE,
    weights: Weights = None,
    cache: Annotated[Path, typer.Option(help="Folder for features.")] = _CACHE,
) -> None:
    """Give images of DIR without a diagnosis the one that a model is sure of, to train on.

    Nothing leaves this machine. In the new table they are `pseudo-label` by dx_type: they are
    trained on, and neither tested on nor calibrated on. Images are linked.
    """
    dataset = Dataset.open(data, diagnosed=False)
    missing = [image for image in dataset.undiagnosed if not image.dx]
    if not missing:
        raise DataError(f"{data} has no row with an empty diagnosis; there is nothing to label")
    model = load_model(model_file(run), *(weights or ()))
    found = pseudo_labelled(model, dataset.for_task(model.task), cache, share)
    given = {image.image_id for image in found}
    left = tuple(image for image in dataset.undiagnosed if image.image_id not in given)
    rows = sorted((*dataset.images, *found, *left), key=lambda image: image.image_id)
    with owned(out), whole_folder(out) as folder:
        write_site(replace(dataset, images=tuple(rows)), folder, link=True)
    by_diagnosis = Counter(image.dx for image in found)
    lesions = Counter(dx for _, dx in {(image.lesion_id, image.dx) for image in found})
    table = [(dx, lesions[dx], by_diagnosis[dx]) for dx in sorted(by_diagnosis)]
    typer.echo(markdown_table(("diagnosis", "lesions", "images"), table))
    typer.echo(printable(f"{len(found)} of {len(missing)} images without a diagnosis have one now"))
