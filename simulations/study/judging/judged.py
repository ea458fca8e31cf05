"""An arm whose predictions are judged, before its figures are plain values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from common.arrays import Floats, Ints
from common.statistics.metrics import Evaluation
from common.task import Task
from simulations.evaluation.intervals import metric_interval
from simulations.study.cells import Arm
from simulations.study.judging.coverage import coverage_by_group, referral_curve
from simulations.study.judging.groups_of_arm import arm_by_group
from simulations.study.judging.predictions import Predictions
from simulations.study.results import (
    FALSE_POSITIVE_RATES,
    ArmResult,
    CellResult,
    Estimate,
    Reliability,
    SiteQuality,
)


@dataclass(frozen=True)
class JudgedArm:
    """An arm with the folds that it finished.

    Attributes
    ----------
    task : the diagnoses.
    cells, sites, failures, missing : as of :class:`simulations.study.results.ArmResult`.
    predictions : by fold.
    resampled : by fold, each metric (1 + repeats,).
    """

    arm: Arm
    task: Task
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

    def result(self) -> ArmResult:
        """Return its figures."""
        folds = list(self.predictions.values())
        confusion, given, most_likely = _counts(self.task, folds)
        joined = Predictions.join(folds) if folds else None
        return ArmResult(
            arm=self.arm,
            cells=self.cells,
            metrics=self.metrics,
            confusion=confusion,
            reliability=given,
            most_likely=most_likely,
            roc=self._roc(),
            sites=self.sites,
            coverage=coverage_by_group(self.task, joined) if joined else {},
            referral=referral_curve(joined) if joined else None,
            failures=self.failures,
            missing=self.missing,
            by_group=arm_by_group(self.task, joined) if joined else None,
        )

    def _roc(self) -> dict[str, Floats]:
        """Return the mean ROC curve of each class: sensitivity at ``FALSE_POSITIVE_RATES``."""
        from sklearn.metrics import roc_curve

        curves: dict[str, Floats] = {}
        for c, dx in enumerate(self.task.codes):
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
        low, high = metric_interval(name, float(mean), np.array(resamples))
        return Estimate(float(mean), sd, low, high, tuple(single))


def _counts(
    task: Task, folds: Sequence[Predictions]
) -> tuple[Ints, Reliability | None, Reliability | None]:
    """Return confusion, and reliability of the given diagnosis and of the most likely one."""
    if not folds:
        return np.zeros((task.n_classes, task.n_classes), dtype=np.int64), None, None
    said = Predictions.join(folds)
    given, most_likely = (
        Evaluation.measure(said.label, called, said.probabilities)
        for called in (said.predicted, said.probabilities.argmax(axis=1))
    )
    return given.confusion, _reliability(given), _reliability(most_likely)


def _reliability(counts: Evaluation) -> Reliability:
    images, right = counts.calibration
    return Reliability(images, right, counts.confidence)
