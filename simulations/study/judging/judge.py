"""Judges predictions: every metric as it is, and under resamples that all arms share.

All arms see the same resamples, so that differences between two are paired.
"""

from collections.abc import Iterator

import numpy as np

from common.arrays import Floats
from common.statistics.confusion import confusion_matrix
from common.task import Task
from simulations.evaluation.answer_measures import measure_answers
from simulations.evaluation.bounded import Bounded
from simulations.evaluation.intervals import metric_interval, resample
from simulations.evaluation.measures import measure
from simulations.study.judging.predictions import Predictions
from simulations.study.results import SiteQuality


class Judge:
    """Resamples that all arms share.

    Parameters
    ----------
    task : the diagnoses.
    seed, repeats : seed and number of the resamples.
    """

    def __init__(self, task: Task, seed: int, repeats: int) -> None:
        self._task = task
        self._seed, self._repeats = seed, repeats
        self._weights: dict[int, Floats] = {}

    def measure(self, fold: int, predictions: Predictions) -> dict[str, Floats]:
        """Return each metric (1 + repeats,) of a fold: as it is, then of every resample."""
        if fold not in self._weights:
            self._weights[fold] = self._resampled(predictions, [self._seed, 4, fold])
        return _measured(self._task, predictions, self._weights[fold])

    def site(self, predictions: Predictions) -> SiteQuality:
        """Judge the predictions for the images of one source."""
        weights = np.ones((1, len(predictions.label)))
        if len(np.unique(predictions.label)) > 1:
            weights = self._resampled(predictions, [self._seed, 5])
        values = _measured(self._task, predictions, weights)
        metrics = {name: _bounded(name, v) for name, v in values.items()}
        confusion = confusion_matrix(
            predictions.label, predictions.predicted, predictions.probabilities.shape[1]
        )
        lesions = len(np.unique(predictions.lesion))
        return SiteQuality(len(predictions.label), lesions, metrics, confusion)

    def _resampled(self, predictions: Predictions, seed: list[int]) -> Floats:
        """Return weights (1 + repeats, n): the images as they are, then of every resample."""
        drawn = resample(predictions.label, predictions.lesion, seed=seed, repeats=self._repeats)
        return np.vstack([np.ones(len(predictions.label)), drawn])


def _measured(task: Task, predictions: Predictions, weights: Floats) -> dict[str, Floats]:
    """Return every metric (1 + repeats,) under weights (1 + repeats, n)."""
    labels, chances = predictions.label, predictions.probabilities
    by_lesion = weights * predictions.share
    return {
        **measure(task, labels, predictions.predicted, chances, weights),
        **measure_answers(task, labels, chances, predictions.answered, by_lesion),
    }


def _bounded(metric: str, values: Floats) -> Bounded:
    """Return a metric (1 + repeats,) with its interval, if it has resamples."""
    value, *resamples = values
    bounds = (np.nan, np.nan)
    if resamples:
        bounds = metric_interval(metric, float(value), np.array(resamples))
    return Bounded(float(value), *bounds)


def by_site(judge: Judge, predictions: Predictions) -> Iterator[tuple[str, SiteQuality]]:
    """Judge an arm on the test images of each source, where the table names sources."""
    for source in np.unique(predictions.source):
        if source:
            yield str(source), judge.site(predictions.select(predictions.source == source))
