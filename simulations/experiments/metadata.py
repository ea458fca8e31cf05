"""What metadata add to a study's arms, and how good these are without them.

``python -m simulations.experiments.metadata OUT ARM...`` takes the finished cells of the study in
``OUT``, with arms named like ``"image pooled"``. Each arm that uses metadata is judged a second
time, as if no patient was known. All are compared with the first, paired over lesions, in a table
in Markdown. Metrics are means over the folds that all of the arms have.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common.arrays import Floats
from common.data.dataset import Dataset
from common.data.duplicates import open_joined
from common.errors import DataError
from common.formats import estimate, markdown_table
from common.models.file import load_model
from common.storage.reading import read_text
from server.run.folder import MODEL_FILE
from simulations.evaluation.intervals import Predicted, interval, metric_interval, resample
from simulations.evaluation.measures import CALIBRATION_ERRORS, SCALARS, measure
from simulations.evaluation.runs import WITHOUT
from simulations.study.cells import Arm, Cell, cut, folders_of
from simulations.study.comparison import CELLS_FOLDER
from simulations.study.definition import Study
from simulations.study.judging.predictions import Predictions
from simulations.study.training.train_cell import JOB_FILE, PREDICTIONS_FILE

_SHOWN = ("balanced_accuracy", "macro_auc", "calibration_error")

Measured = dict[str, Floats]
"""Each metric, (1 + repeats,): as it is, then of every resample."""


class _Finished(NamedTuple):
    """A cell with a model, and what described it."""

    folder: Path
    data: str
    cache: Path
    study: Study
    cell: Cell

    @classmethod
    def read(cls, folder: Path) -> "_Finished":
        job = json.loads(read_text(folder / JOB_FILE))
        study, cell = Study.model_validate(job["study"]), Cell(Arm(*job["arm"]), job["fold"])
        return cls(folder, job["data"], Path(job["cache"]), study, cell)

    @property
    def metadata(self) -> bool:
        return bool(self.study.config(self.cell.arm.route).metadata)

    def dataset(self) -> Dataset:
        """Return the study's data, as the cell saw them."""
        return open_joined(self.data, self.cache).for_task(self.study.task)

    def measure(self, dataset: Dataset, blank: bool) -> Measured:
        """Judge what its model said of its test images, or says if no patient is known."""
        said = Predictions.load(self.folder / PREDICTIONS_FILE)
        told = (said.predicted, said.probabilities)
        predicted, chances = self._without(dataset) if blank else told
        drawn = resample(
            said.label,
            said.lesion,
            seed=[self.study.seed, 4, self.cell.fold],
            repeats=self.study.resamples,
        )
        weights = np.vstack([np.ones(len(said.label)), drawn])
        return measure(dataset.task, said.label, predicted, chances, weights)

    def _without(self, dataset: Dataset) -> Predicted:
        test = cut(self.study, dataset, self.cell).test.without_metadata()
        weights = self.study.config(self.cell.arm.route).weights
        model = load_model(self.folder / "run" / MODEL_FILE, weights)
        scores = model.dataset_scores(test, self.cache)
        return model.basis.decide(scores), model.basis.probabilities(scores)


def rows(out: Path, arms: list[str]) -> Iterator[list[str]]:
    """Yield a row of the table for each arm, and for each one without metadata.

    Raises
    ------
    DataError
        If no fold of all arms is finished.
    """
    cells = [_cells(out, arm) for arm in arms]
    folds = sorted(set.intersection(*map(set, cells)))
    if not folds:
        raise DataError(f"{out} has no fold in which all of {', '.join(arms)} are finished")
    dataset = cells[0][folds[0]].dataset()
    reference: Measured = {}
    for arm, of_arm in zip(arms, cells, strict=True):
        chosen = [of_arm[fold] for fold in folds]
        for blank in [False, True] if chosen[0].metadata else [False]:
            measured = [cell.measure(dataset, blank) for cell in chosen]
            mean = {name: np.mean([m[name] for m in measured], axis=0) for name in _SHOWN}
            yield [arm + WITHOUT * blank, *_figures(mean, reference)]
            reference = reference or mean


def _cells(out: Path, arm: str) -> dict[int, _Finished]:
    """Return an arm's finished cells by fold."""
    files = (out / CELLS_FOLDER).glob(f"{folders_of(arm)}/{PREDICTIONS_FILE}")
    found = [_Finished.read(file.parent) for file in files]
    return {each.cell.fold: each for each in found}


def _figures(mean: Measured, reference: Measured) -> Iterator[str]:
    for name in _SHOWN:
        value, *resamples = mean[name]
        yield estimate(float(value), metric_interval(name, float(value), np.array(resamples)))
        yield _difference(name, mean[name] - reference[name]) if reference else "-"


def _difference(name: str, values: Floats) -> str:
    value, resamples = float(values[0]), values[1:]
    if name in CALIBRATION_ERRORS:  # those of resamples are larger
        resamples = resamples - resamples.mean() + value
    return estimate(value, interval(resamples), "+.3f")


def main(out: Path, arms: list[str]) -> None:
    """Print the table."""
    header = [text for name in _SHOWN for text in (SCALARS[name], f"minus {arms[0]}")]
    print(markdown_table(("arm", *header), rows(out, arms)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
