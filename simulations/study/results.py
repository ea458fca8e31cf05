"""The results of a study's arm: plain values that a report reads.

A metric of an arm is the mean of its folds'. Its interval resamples lesions within class and fold,
and takes the mean of the folds again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypedDict

import numpy as np

from common.arrays import Floats, Ints
from simulations.evaluation.bounded import Bounded
from simulations.evaluation.groups.figures import ByGroup
from simulations.study.cells import Arm

FALSE_POSITIVE_RATES = np.linspace(0, 1, 101)
"""False-positive rates at which the mean ROC curve is given."""

ACCEPTED = np.linspace(0.05, 1, 96)
"""Shares of the lesions that are answered, at which the risk is given."""

_SAME = 1e-9
"""Largest difference of metrics between arms whose models are the same but for rounding."""


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


class GroupCoverage(NamedTuple):
    """How often the prediction sets of a group's lesions hold their diagnosis.

    Attributes
    ----------
    lesions : how many there are; one with images in two groups counts a share in each.
    value, low, high : share of them that is covered, and its 95 % interval, in [0, 1].
    """

    lesions: float
    value: float
    low: float
    high: float


Groups = Mapping[str, Mapping[str, GroupCoverage]]
"""Coverage by dimension (diagnosis, site, sex, age), and there by group."""


class Reliability(NamedTuple):
    """Images of all folds by the confidence of a class, in bins of equal width.

    Attributes
    ----------
    images, right : (bins,) numbers of images, and of those that the class is the diagnosis of.
    confidence : (bins,) sums of the probabilities given to the class.
    """

    images: Ints
    right: Ints
    confidence: Floats


@dataclass(frozen=True, eq=False)
class ArmResult:
    """An arm with the folds that it finished; without one it has no figures.

    Attributes
    ----------
    cells : by fold, what the cell kept of itself (``result.json``).
    metrics : by name.
    confusion : (n_classes, n_classes) number of images by [true, predicted] class, of all folds.
    reliability : of the diagnosis that the decision rule gave.
    most_likely : of the class with the largest probability; None in values of an old report.
    roc : mean curve of each class by its code: sensitivities in [0, 1], of the shape of
        ``FALSE_POSITIVE_RATES``, at these rates.
    sites : by source of the test images.
    coverage : of prediction sets by dimension and group; none where the model has no sets.
    referral : share that is wrong of the surest images, in [0, 1], at the shares
        ``ACCEPTED``, of its shape; None in values of an old report.
    failures : reasons by fold.
    missing : folds that were not trained yet.
    by_group : on groups of lesions, all folds together; None in values of an old report.
    """

    arm: Arm
    cells: Mapping[int, CellResult]
    metrics: Mapping[str, Estimate]
    confusion: Ints
    reliability: Reliability | None
    most_likely: Reliability | None
    roc: Mapping[str, Floats]
    sites: Mapping[str, SiteQuality]
    coverage: Groups
    referral: Floats | None
    failures: Mapping[int, str]
    missing: Sequence[int]
    by_group: ByGroup | None = None

    @property
    def balanced(self) -> Estimate:
        """Balanced accuracy, by which arms are ranked."""
        return self.metrics["balanced_accuracy"]

    def identical(self, other: "ArmResult") -> bool:
        """Tell whether the other's models said the same of every fold, but for rounding."""
        return (
            self.cells.keys() == other.cells.keys()
            and np.array_equal(self.confusion, other.confusion)
            and all(
                np.allclose(m.folds, other.metrics[name].folds, 0, _SAME, equal_nan=True)
                for name, m in self.metrics.items()
            )
        )
