"""The results of a study's arm: plain values that a report reads.

A metric of an arm is the mean of its folds'. Its interval resamples lesions within class and fold,
and takes the mean of the folds again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, TypedDict

import numpy as np

from common.arrays import Floats, Ints
from common.statistics.metrics import Evaluation
from common.task import DIAGNOSES
from simulations.study.cells import Arm
from simulations.study.intervals import interval
from simulations.study.predictions import Predictions

FALSE_POSITIVE_RATES = np.linspace(0, 1, 101)
"""False-positive rates at which the mean ROC curve is given."""


class TrainingSize(TypedDict):
    """How much a cell was trained on."""

    images: int
    lesions: int


class CellResult(TypedDict):
    """What a cell keeps of its training, as ``result.json``.

    ``seconds`` is None where the run was interrupted, ``peak_memory`` also where the system does
    not tell it; ``left_out`` and ``chosen`` are as the run wrote them.
    """

    training: TrainingSize
    sites: int
    cores: int
    left_out: dict[str, str]
    chosen: dict[str, float | None]
    fit_rounds: int
    rounds: int
    bytes_up: int
    bytes_down: int
    seconds: dict[str, float] | None
    peak_memory: int | None
    model_bytes: int


@dataclass(frozen=True)
class Estimate:
    """A metric of an arm: mean and standard deviation over folds, 95 % interval, each fold's."""

    mean: float
    sd: float
    low: float
    high: float
    folds: tuple[float, ...]


class Bounded(NamedTuple):
    """A value with its 95 % interval, which is nan where nothing can be resampled."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class SiteQuality:
    """How an arm does on the test images of one source, all folds together.

    Attributes
    ----------
    metrics : by name; means are over the diagnoses that the source has.
    confusion : (n_classes, n_classes) number of images by [true, predicted] class.
    """

    images: int
    lesions: int
    metrics: Mapping[str, Bounded]
    confusion: Ints


@dataclass(frozen=True)
class ArmResult:
    """An arm with the folds that it finished.

    Attributes
    ----------
    cells : by fold, what the cell kept of itself (``result.json``).
    predictions : the predictions by fold.
    resampled : by fold, each metric (1 + repeats,).
    failures : reasons by fold.
    missing : folds that were not trained yet.
    """

    arm: Arm
    cells: Mapping[int, CellResult]
    predictions: Mapping[int, Predictions]
    resampled: Mapping[int, Mapping[str, Floats]]
    sites: Mapping[str, SiteQuality]
    failures: Mapping[int, str]
    missing: Sequence[int]

    @cached_property
    def metrics(self) -> dict[str, Estimate]:
        """Every metric by name; none without a finished fold."""
        names = next(iter(self.resampled.values()), {})
        return {name: self._estimate(name) for name in names}

    def mean(self, metric: str, folds: Sequence[int]) -> Floats:
        """Return a metric's mean over some folds, (1 + repeats,)."""
        values = np.stack([self.resampled[fold][metric] for fold in folds])
        known = values[~np.isnan(values[:, 0])]
        return np.asarray(known.mean(axis=0) if len(known) else values[0])

    @cached_property
    def together(self) -> Predictions:
        """The predictions of all folds."""
        return Predictions.join(list(self.predictions.values()))

    @cached_property
    def counts(self) -> Evaluation:
        """Confusion and reliability of all folds together."""
        joined = self.together
        return Evaluation.measure(joined.label, joined.predicted, joined.probabilities)

    def roc(self) -> dict[str, Floats]:
        """Return the mean ROC curve of each class by its code.

        Returns
        -------
        Sensitivities in [0, 1], of the shape of ``FALSE_POSITIVE_RATES``, at these rates.
        """
        from sklearn.metrics import roc_curve

        curves: dict[str, Floats] = {}
        for c, dx in enumerate(DIAGNOSES):
            rows = []
            for predictions in self.predictions.values():
                positive = predictions.label == c
                if 0 < positive.sum() < len(positive):
                    false, true, _ = roc_curve(positive, predictions.probabilities[:, c])
                    rows.append(np.interp(FALSE_POSITIVE_RATES, false, true))
            if rows:
                curves[dx] = np.mean(rows, axis=0)
                curves[dx][0] = 0.0
        return curves

    def _estimate(self, name: str) -> Estimate:
        folds = list(self.resampled)
        mean, *resamples = self.mean(name, folds)
        single = [float(self.resampled[fold][name][0]) for fold in folds]
        known = [value for value in single if not np.isnan(value)]
        sd = float(np.std(known, ddof=1)) if len(known) > 1 else float("nan")
        return Estimate(float(mean), sd, *interval(np.array(resamples)), tuple(single))
