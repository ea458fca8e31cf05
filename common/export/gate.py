"""Whether an exported file may stand in for its model: both answer about the same lesions.

A file that is worse than allowed in one of the figures is refused.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import isnan, nan
from typing import Self

import numpy as np

from common.answers.answering import Answering, AnswerOptions
from common.answers.basis import AnswerBasis
from common.answers.counts import AnswerCounts
from common.answers.operating import balanced, target_members, target_probabilities, targets_of
from common.answers.prediction_sets import sets
from common.arrays import Bools, Floats, Ints
from common.formats import markdown_table
from common.json_types import Json
from common.statistics.metrics import Evaluation, Metrics

BALANCED_ACCURACY = 0.005
SENSITIVITY = 0.01
AGREEMENT = 0.98
CALIBRATION = 0.01
COVERAGE = 0.01
"""What may be lost of balanced accuracy and of a screening rule's sensitivity; the least share of
images with the same diagnosis; by what the calibration error may grow; by what the coverage of
prediction sets may change, up or down."""

_ROUNDING = 1e-9


@dataclass(frozen=True)
class Row:
    """A figure of a model and of its exported file; nan where it cannot be measured.

    Attributes
    ----------
    what : is measured.
    before, after : of the model and of the file, in [0, 1].
    change : by how much the file is worse, negative where it is better.
    allowed : the largest change.
    """

    what: str
    before: float
    after: float
    change: float
    allowed: float

    @classmethod
    def of(cls, what: str, pair: tuple[float, float], change: float, allowed: float) -> Self:
        """Return the row of a ``pair``, before and after."""
        return cls(what, *pair, change, allowed)

    @property
    def verdict(self) -> str:
        """One of "passed", "refused" and "not measured"."""
        if isnan(self.change):
            return "not measured"
        return "passed" if self.change <= self.allowed + _ROUNDING else "refused"

    def to_json(self) -> dict[str, Json]:
        """Return the row as plain values."""
        return {"what": self.what, "before": self.before, "after": self.after}


@dataclass(frozen=True)
class Lesions:
    """The held-out lesions that model and file are compared on.

    Attributes
    ----------
    labels : (n,) true classes of the images.
    index : (n,) number of the lesion that each image shows, from 0 on.
    seed : by which lesions are halved, and one image of each is drawn.
    """

    labels: Ints
    index: Ints
    seed: int

    def mean(self, values: Bools, rows: Bools) -> float:
        """Return the mean of ``values`` (n,) over ``rows`` (n,); nan over none.

        The images of a lesion share its weight, as in `fedderm evaluate`.
        """
        weights = (1 / np.bincount(self.index)[self.index])[rows]
        return float(np.average(values[rows], weights=weights)) if rows.any() else nan

    def halves(self) -> tuple[Bools, Bools]:
        """Return the images (n,) of each half of the lesions, halved by chance."""
        order = np.random.default_rng([self.seed, 6]).permutation(int(self.index.max()) + 1)
        first = np.asarray(order % 2 == 0)[self.index]
        return first, ~first

    def drawn(self, rows: Bools) -> Ints:
        """Return one image by chance, (lesions,), of each lesion that ``rows`` (n,) show."""
        order = np.random.default_rng([self.seed, 7]).permutation(len(rows))
        order = order[rows[order]]
        return np.asarray(order[np.unique(self.index[order], return_index=True)[1]])


def compare(basis: AnswerBasis, lesions: Lesions, before: Floats, after: Floats) -> list[Row]:
    """Compare the answers of a model with those of its file.

    Parameters
    ----------
    basis : of the model's answers.
    before, after : probabilities (n, n_classes) that model and file give the lesions' n images.
    """
    model, file = (_Figures(basis, lesions, each) for each in (before, after))
    accuracy = (model.balanced_accuracy(), file.balanced_accuracy())
    same = float((before.argmax(axis=1) == after.argmax(axis=1)).mean())
    error = (model.calibration_error(), file.calibration_error())
    covered = (model.coverage(), file.coverage())
    anew = (model.coverage_anew(), file.coverage_anew())
    return [
        Row.of("balanced accuracy", accuracy, accuracy[0] - accuracy[1], BALANCED_ACCURACY),
        *_flagged(basis, model, file),
        Row.of("same likeliest diagnosis", (1.0, same), 1 - same, 1 - AGREEMENT),
        Row.of("calibration error", error, error[1] - error[0], CALIBRATION),
        Row.of("coverage of sets", covered, abs(covered[0] - covered[1]), COVERAGE),
        Row.of("coverage of sets, calibrated anew", anew, abs(anew[0] - anew[1]), COVERAGE),
    ]


def _flagged(basis: AnswerBasis, model: "_Figures", file: "_Figures") -> Iterator[Row]:
    """Yield the sensitivity of the first screening rule: melanoma's, where the task has one."""
    for target in targets_of(basis.task)[:1]:
        pair = (model.flagged(target), file.flagged(target))
        yield Row.of(f"{target} flagged", pair, pair[0] - pair[1], SENSITIVITY)


def table(rows: Sequence[Row]) -> str:
    """Return a comparison as a table in Markdown."""
    header = ("", "model", "file", "worse by", "allowed", "")
    return markdown_table(header, [(row.what, *_cells(row), row.verdict) for row in rows])


def _cells(row: Row) -> Iterator[str]:
    for figure in (row.before, row.after, row.change, row.allowed):
        yield "" if isnan(figure) else f"{figure:.4f}"


@dataclass(frozen=True)
class _Figures:
    """What is measured of one of the two, by its probabilities (n, n_classes)."""

    basis: AnswerBasis
    lesions: Lesions
    probabilities: Floats

    def balanced_accuracy(self) -> float:
        return self._metrics(balanced(self.probabilities, self.basis.base_rates)).balanced_accuracy

    def calibration_error(self) -> float:
        return self._metrics(self.probabilities.argmax(axis=1)).expected_calibration_error

    def flagged(self, target: str) -> float:
        """Return the share of the lesions with a target that its screening rule flags."""
        task, labels = self.basis.task, self.lesions.labels
        column = [str(each) for each in targets_of(task)].index(target)
        having = np.asarray(target_members(task)[labels, column])
        chances = target_probabilities(self.probabilities, task)[:, column]
        for point in Answering(self.basis, AnswerOptions()).points:
            if point.target == target:
                return self.lesions.mean(chances >= point.threshold, having)
        return nan

    def coverage(self) -> float:
        return self._covered(self.basis, np.ones(len(self.probabilities), dtype=np.bool_))

    def coverage_anew(self) -> float:
        """Return the coverage of each half's lesions by thresholds from those of the other."""
        first, second = self.lesions.halves()
        found = [self._by_half(first, second), self._by_half(second, first)]
        return float(np.mean(found))

    def _by_half(self, own: Bools, other: Bools) -> float:
        rows = self.lesions.drawn(own)
        labels, chances = self.lesions.labels[rows], self.probabilities[rows]
        counts = AnswerCounts.measure(self.basis.task, labels, chances)
        return self._covered(replace(self.basis, lesions=counts, by_site={}), other)

    def _covered(self, basis: AnswerBasis, rows: Bools) -> float:
        thresholds = Answering(basis, AnswerOptions()).thresholds()
        if thresholds is None:
            return nan
        inside = sets(self.probabilities, thresholds)
        own = inside[np.arange(len(inside)), self.lesions.labels]
        return self.lesions.mean(own, rows)

    def _metrics(self, called: Ints) -> Metrics:
        return Metrics.compute(Evaluation.measure(self.lesions.labels, called, self.probabilities))
