"""What a model loses in another light.

``python -m simulations.experiments.light DATA`` leaves one source of images out of the training and
tests on it, with each way to take out the colour of the light.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from common.arrays import Floats
from common.data.dataset import Dataset
from common.features.extract import Features, FeatureSpec, extract
from common.features.transform import Colour, Transform
from common.formats import markdown_table
from simulations.experiments.cameras import balanced_accuracy, gap, one_a_lesion
from simulations.experiments.plain_svm import fitted

_COLOURS: tuple[Colour, ...] = ("none", "grey-world", "shades-of-gray")


def main(
    data: Annotated[Path, typer.Argument(help="Folder laid out like HAM10000.")],
    most: Annotated[int, typer.Option(help="Lesions of each diagnosis, at most.")] = 600,
    cache: Annotated[Path, typer.Option(help="Folder for features.")] = Path("~/.cache/fedderm"),
) -> None:
    """Train linear SVMs without one source of images and test them on it, each in turn."""
    dataset = one_a_lesion(Dataset.open(data), most)
    found: dict[Colour, Floats] = {}
    for name in _COLOURS:
        spec = FeatureSpec(views=2, predictions=2, transform=Transform(colour=name))
        found[name] = _unseen(dataset, extract(dataset, spec, cache.expanduser(), True))
    header = ("colour", *np.unique(dataset.sources).tolist(), "all, each unseen", "gap (95 %)")
    typer.echo(markdown_table(header, list(_rows(dataset, found))))


def _unseen(dataset: Dataset, features: Features) -> Floats:
    """Return which diagnoses (n,) are found by SVMs that saw no image of the lesion's source."""
    found = np.empty(len(dataset))
    for source in np.unique(dataset.sources):
        held = np.asarray(dataset.sources == source)
        found[held] = fitted(features, dataset.labels, ~held)(features, held)
    return found


def _rows(dataset: Dataset, found: Mapping[Colour, Floats]) -> Iterator[Sequence[str]]:
    labels = dataset.labels
    for name, each in found.items():
        sites = [dataset.sources == source for source in np.unique(dataset.sources)]
        values = [balanced_accuracy(labels[site], each[site]) for site in sites]
        values.append(balanced_accuracy(labels, each))
        yield name, *(f"{value:.3f}" for value in values), gap(labels, each, found["none"])


if __name__ == "__main__":
    typer.run(main)
