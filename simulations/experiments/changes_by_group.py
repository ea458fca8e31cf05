"""What one arm of a study changes for each group of lesions, beside another.

``python -m simulations.experiments.changes_by_group DATA OUT FIRST SECOND BY`` reads the
predictions that the study in ``OUT`` kept of two arms, such as ``"image pooled"``, and prints
tables in Markdown: the second arm minus the first. ``BY`` is as of ``fedderm evaluate --by``.
"""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from common.data.dataset import Dataset
from common.data.dimensions import Dimension, read_dimensions
from common.errors import DataError
from common.formats import markdown_table
from simulations.evaluation.groups.changes import CHANGED, Changes, GroupChange, changes_by_group
from simulations.evaluation.groups.figures import Grouping
from simulations.evaluation.groups.gaps import Gap
from simulations.evaluation.groups.measures import METRICS, Records
from simulations.evaluation.groups.weights import lesion_weights
from simulations.study.cells import folders_of
from simulations.study.comparison import CELLS_FOLDER
from simulations.study.judging.predictions import Predictions
from simulations.study.training.train_cell import PREDICTIONS_FILE

_SEED, _REPEATS = 7, 1000


def arm_predictions(out: Path, arm: str) -> Predictions:
    """Return what an arm said on the folds that are finished, in the order of their images.

    Raises
    ------
    DataError
        If no fold of it is there.
    """
    cells = out / CELLS_FOLDER
    files = sorted(cells.glob(f"{folders_of(arm)}/{PREDICTIONS_FILE}"))
    if not files:
        raise DataError(f"{cells} has no predictions of '{arm}'; name an arm like 'image pooled'")
    joined = Predictions.join([Predictions.load(file) for file in files])
    return joined.select(np.argsort(joined.image, kind="stable"))


def compared(dataset: Dataset, pair: list[Predictions], by: tuple[Dimension, ...]) -> Changes:
    """Compare two arms on the images that both were tested on."""
    both = np.intersect1d(pair[0].image, pair[1].image)
    first, second = (p.select(np.isin(p.image, both)) for p in pair)
    weights = lesion_weights(first.label, first.lesion, _SEED, _REPEATS)
    before, after = (
        Records.of(dataset.task, p.label, p.predicted, p.probabilities, p.answered, weights[0])
        for p in (first, second)
    )
    by_name = {image.image_id: image for image in dataset.images}
    images = [by_name[name] for name in first.image]
    groupings = [Grouping.of(dimension, images) for dimension in by]
    return changes_by_group(before, after, weights, groupings)


def tables(found: Changes) -> Iterator[str]:
    """Yield a table of the changes, and one of how they differ from the rest's."""
    yield markdown_table(_HEADER, [_row(group, group.changes) for group in found.groups])
    yield "Minus the change for the other groups:"
    yield markdown_table(_HEADER, [_row(group, group.to_rest) for group in found.groups])
    yield (
        f"The intervals of {found.judged} changes hold together with 95 %, and reach "
        f"{found.reach:.2f} standard errors. Behind each stands the smallest one to be seen."
    )


_HEADER = ("group", "lesions", *(METRICS[name] for name in CHANGED))


def _row(group: GroupChange, changes: Mapping[str, Gap]) -> list[str]:
    return [group.group, f"{group.lesions:.0f}", *(g.with_detectable() for g in changes.values())]


def main(data: Path, out: Path, first: str, second: str, by: str) -> None:
    """Print the tables."""
    pair = [arm_predictions(out, arm) for arm in (first, second)]
    found = compared(Dataset.open(data), pair, read_dimensions(by))
    print(*tables(found), sep="\n\n")


if __name__ == "__main__":
    data, out, *names = sys.argv[1:]
    main(Path(data), Path(out), *names)
