"""How far a class's scale of the calibration may lie from the others' when lesions are few.

``python -m simulations.experiments.calibration CELL...`` takes finished cells of studies, such as
``OUT/cells/net_natural_fold_0``. It calibrates the scores of a cell's test images on those of some
lesions, drawn again and again, judges the others' probabilities, and prints tables in Markdown,
one for each cell: means over the draws, by the spread of the prior.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from common.arrays import Floats, Ints
from common.formats import markdown_table
from common.models.file import load_model
from common.statistics.calibration import (
    SPREAD,
    calibration_sums,
    decisions,
    fit,
    probabilities,
)
from common.statistics.metrics import Evaluation, Metrics
from server.run.folder import MODEL_FILE
from simulations.study.judging.predictions import Predictions
from simulations.study.training.train_cell import PREDICTIONS_FILE

_SPREADS = (1e-3, 0.1, SPREAD, 0.3, 0.5, 1.0, 100.0)
_IMAGES = 800
"""About as many as the validation lesions of HAM10000 have by default."""

_DRAWS = 12
_HEADER = ("spread", "log loss", "balanced accuracy", "macro AUC", "largest scale, by the mean")


def _scores(cell: Path, predicted: Predictions) -> Floats:
    """Return what the cell's model calibrated, (n, n_classes), up to a constant for each image."""
    scales, biases = load_model(cell / "run" / MODEL_FILE).basis.calibration
    tiny = np.finfo(predicted.probabilities.dtype).tiny
    return np.asarray((np.log(np.maximum(predicted.probabilities, tiny)) - biases) / scales)


def _judge(scores: Floats, y: Ints, chosen: Ints, spread: float) -> tuple[float, ...]:
    """Calibrate on the ``chosen`` images and judge the others."""
    n_classes, rates = scores.shape[1], np.bincount(y, minlength=scores.shape[1]) / len(y)
    few, of_few = scores[chosen], y[chosen]
    found = fit(lambda p: calibration_sums(few, of_few, p), n_classes, spread)
    rest, of_rest = np.delete(scores, chosen, axis=0), np.delete(y, chosen)
    chances = probabilities(rest, found)
    counts = Evaluation.measure(of_rest, decisions(rest, found, rates), chances)
    metrics = Metrics.compute(counts)
    largest = float(found[0].max() / found[0].mean())
    return metrics.log_loss, metrics.balanced_accuracy, metrics.macro_auc, largest


def _rows(cell: Path) -> Iterator[list[str]]:
    predicted = Predictions.load(cell / PREDICTIONS_FILE)
    scores, y = _scores(cell, predicted), predicted.label
    lesions = np.unique(predicted.lesion)
    share = round(len(lesions) * _IMAGES / len(y))
    for spread in _SPREADS:
        judged = []
        for draw in range(_DRAWS):
            drawn = np.random.default_rng(draw).choice(lesions, share, replace=False)
            chosen = np.flatnonzero(np.isin(predicted.lesion, drawn))
            judged.append(_judge(scores, y, chosen, spread))
        yield [f"{spread:g}", *(f"{value:.4f}" for value in np.mean(judged, axis=0))]


def main(cells: list[str]) -> None:
    """Print a table for each cell."""
    for cell in cells:
        print(f"{Path(cell).name}\n\n{markdown_table(_HEADER, _rows(Path(cell)))}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
