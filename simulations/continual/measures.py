"""How well each step's model does on what has arrived at each step, and what was forgotten.

Lopez-Paz and Ranzato, "Gradient episodic memory for continual learning", NIPS 2017, section 2:
the matrix R of step by group, average accuracy, backward and forward transfer.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.arrays import Bools, Floats, Ints
from common.data.splits import TEST
from common.models.file import load_model
from common.statistics.confusion import ConfusionMetrics, mean_defined
from server.run.folder import MODEL_FILE, ROUNDS_FILE
from simulations.continual.scenarios import Scenario
from simulations.continual.training import JOINT, Step
from simulations.evaluation.bounded import Bounded
from simulations.evaluation.intervals import interval, resample
from simulations.evaluation.measures import weighted_confusion

_REPEATS = 1000


@dataclass(frozen=True)
class WayFigures:
    """What a way came to.

    Attributes
    ----------
    matrix : balanced accuracy by step and group, ``matrix[step][group]``.
    overall : balanced accuracy on all test lesions after the last step.
    after_each : the same after each step, on the lesions of what has arrived.
    backward : what the last step's model has on earlier groups beside the model of their own step,
        on average: below 0, this much is forgotten.
    forward : balanced accuracy on a group one step before it arrives, on average.
    minus_joint, earlier_minus_joint : overall, and on earlier groups, minus the joint training.
    rounds : of all steps after the first.
    """

    matrix: list[list[float]]
    overall: Bounded
    after_each: list[Bounded]
    backward: Bounded
    forward: Bounded
    minus_joint: Bounded
    earlier_minus_joint: Bounded
    rounds: int


@dataclass(frozen=True)
class _Resampled:
    """Figures of one way: (1 + repeats,) each, as they are and of every resample."""

    matrix: Floats
    overall: Floats
    after_each: Floats
    rounds: int


def measure(
    scenario: Scenario, steps: Iterable[Step], cache: Path, weights: Path | None, seed: int
) -> dict[str, WayFigures]:
    """Judge the models of all steps on the test lesions of all groups.

    Parameters
    ----------
    cache : folder of features.
    weights : file of the pretrained weights; None for the default ones.
    """
    judge = _Judge(scenario, cache, weights, seed)
    by_way: dict[str, list[tuple[Ints, int]]] = {}
    for step in steps:
        by_way.setdefault(step.way, []).append((judge.predicted(step), _rounds(step.run)))
    found = {way: judge.figures(decided) for way, decided in by_way.items()}
    return {way: _figures(each, found[JOINT]) for way, each in found.items()}


class _Judge:
    def __init__(self, scenario: Scenario, cache: Path, weights: Path | None, seed: int) -> None:
        chosen = np.flatnonzero(scenario.dataset.splits == TEST)
        self._test, self._group = scenario.dataset.select(chosen), scenario.step[chosen]
        self._scenario, self._cache, self._weights = scenario, cache, weights
        labels, lesions = self._test.labels, self._test.lesions
        drawn = resample(labels, lesions, seed=[seed, 5], repeats=_REPEATS)
        self._resamples = np.vstack([np.ones(len(labels)), drawn])

    def predicted(self, step: Step) -> Ints:
        """Return the diagnoses (n,) by number in the whole task; -1 where none was to be given."""
        task, whole = self._scenario.tasks[step.number], self._test.task
        known = np.array([code in task.codes for code in whole.codes])[self._test.labels]
        model = load_model(step.run / MODEL_FILE, self._weights)
        told = self._test.select(np.flatnonzero(known)).for_task(task)
        places = np.array([whole.codes.index(code) for code in task.codes])
        decided = np.full(len(self._test), -1)
        decided[known] = places[model.basis.decide(model.dataset_scores(told, self._cache))]
        return decided

    def figures(self, decided: list[tuple[Ints, int]]) -> _Resampled:
        """Return the figures of a way from its decisions and rounds at each step."""
        n = len(self._scenario.names)
        groups = [self._group == g for g in range(n)]
        matrix = np.array(
            [[self._balanced(d, of_group) for of_group in groups] for d, _ in decided]
        )
        arrived = [self._balanced(d, self._group <= t) for t, (d, _) in enumerate(decided)]
        return _Resampled(
            np.moveaxis(matrix, -1, 0),
            arrived[-1],
            np.array(arrived).T,
            sum(rounds for _, rounds in decided[1:]),
        )

    def _balanced(self, decided: Ints, which: Bools) -> Floats:
        """Return balanced accuracies (1 + repeats,) over some images, of diagnoses to be given."""
        chosen = np.flatnonzero(which & (decided >= 0))
        if not len(chosen):
            return np.full(len(self._resamples), np.nan)
        confusion = weighted_confusion(
            self._test.labels[chosen],
            decided[chosen],
            self._test.task.n_classes,
            self._resamples[:, chosen],
        )
        return ConfusionMetrics.compute(confusion).balanced_accuracy


def _figures(way: _Resampled, joint: _Resampled) -> WayFigures:
    last, n = way.matrix[:, -1], way.matrix.shape[1]
    diagonal = np.diagonal(way.matrix, axis1=1, axis2=2)
    before = np.diagonal(way.matrix[:, :-1, 1:], axis1=1, axis2=2)
    earlier = slice(0, n - 1)
    return WayFigures(
        matrix=[[float(value) for value in row] for row in way.matrix[0]],
        overall=_value(way.overall),
        after_each=[_value(column) for column in way.after_each.T],
        backward=_value(mean_defined(last[:, earlier] - diagonal[:, earlier])),
        forward=_value(mean_defined(before)),
        minus_joint=_value(way.overall - joint.overall),
        earlier_minus_joint=_value(mean_defined(last[:, earlier] - joint.matrix[:, -1, earlier])),
        rounds=way.rounds,
    )


def _value(resampled: Floats) -> Bounded:
    value, resamples = float(resampled[0]), resampled[1:]
    if not np.isfinite(value):
        return Bounded(np.nan, np.nan, np.nan)
    low, high = interval(resamples[np.isfinite(resamples)])
    return Bounded(value, low, high)


def _rounds(run: Path) -> int:
    return len((run / ROUNDS_FILE).read_text(encoding="utf-8").splitlines())
