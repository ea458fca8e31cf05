"""What lesions add to the metrics of groups: confusion counts and histograms of each group."""

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from common.answers.operating import target_members, target_probabilities, targets_of
from common.arrays import Floats, Ints
from common.statistics.confusion import count
from common.statistics.metrics import CALIBRATION_BINS, SCORE_BINS, confidences, score_edges
from common.statistics.sums import Sums
from common.task import Task


@dataclass(frozen=True)
class GroupCounts(Sums):
    """Counts of all images of each group, as of an `Evaluation`; an image may be in several groups.

    Attributes
    ----------
    lesions : (groups,) number of lesions with an image in the group.
    confusion : (groups, n_classes, n_classes) number of images by [true, predicted] class.
    screening : (groups, targets, 2, SCORE_BINS) for each of the task's targets histograms of its
        probability, over the images without it (0) and with it (1); the bins are those of
        ``score_edges(n_classes)``.
    calibration : (groups, 2, CALIBRATION_BINS) number of images (0), and of those predicted
        correctly (1), by the probability of the predicted class.
    confidence : (groups, CALIBRATION_BINS) sum of these probabilities.
    """

    nonnegative: ClassVar[tuple[str, ...]] = (
        "lesions",
        "confusion",
        "screening",
        "calibration",
        "confidence",
    )

    lesions: Ints
    confusion: Ints
    screening: Ints
    calibration: Ints
    confidence: Floats

    @classmethod
    def zero(cls, task: Task, groups: int) -> Self:
        """Return the counts of no images, in so many groups."""
        none = np.zeros(0, dtype=np.int64)
        empty = np.zeros((0, task.n_classes))
        return cls.measure(task, none[None], groups, none, none, none, empty)

    @classmethod
    def measure(
        cls,
        task: Task,
        places: Ints,
        groups: int,
        lesions: Ints,
        labels: NDArray[np.integer],
        predicted: NDArray[np.integer],
        probabilities: Floats,
    ) -> Self:
        """Count n images.

        Parameters
        ----------
        places : (dimensions, n) the group of each image in each dimension, in [0, groups); -1
            where it is in none.
        groups : number of groups of all dimensions.
        lesions : (n,) numbers of the images' lesions.
        labels, predicted : (n,) true and predicted classes.
        probabilities : (n, n_classes) in [0, 1]; rows sum to 1.
        """
        own, right = labels.astype(np.int64), labels == predicted
        dimension, image = np.nonzero(places >= 0)
        group = places[dimension, image]
        held = np.unique(np.stack([group, lesions[image]]), axis=1)
        confidence, bins = confidences(probabilities[image], predicted[image])
        hit, k = right[image], task.n_classes
        binned = (groups, CALIBRATION_BINS)
        sums = np.bincount(group * CALIBRATION_BINS + bins, confidence, int(np.prod(binned)))
        return cls(
            lesions=count((groups,), held[0]),
            confusion=count((groups, k, k), group, own[image], predicted[image]),
            screening=_screening(task, groups, group, own[image], probabilities[image]),
            calibration=np.stack(
                [count(binned, group, bins), count(binned, group[hit], bins[hit])], axis=1
            ),
            confidence=sums.astype(np.float64).reshape(binned),
        )


@dataclass(frozen=True)
class ScreeningCounts(Sums):
    """Histograms of each group's lesions, one image of each, for thresholds by group.

    Attributes
    ----------
    lesions : (groups,) number of lesions.
    screening : (groups, targets, 2, SCORE_BINS) as of `GroupCounts`.
    """

    nonnegative: ClassVar[tuple[str, ...]] = ("lesions", "screening")
    counted: ClassVar[str | None] = "lesions"

    lesions: Ints
    screening: Ints

    @classmethod
    def zero(cls, task: Task, groups: int) -> Self:
        """Return the counts of no lesions, in so many groups."""
        none = np.zeros(0, dtype=np.int64)
        return cls.measure(task, none, groups, none, np.zeros((0, task.n_classes)))

    @classmethod
    def measure(
        cls,
        task: Task,
        places: Ints,
        groups: int,
        labels: NDArray[np.integer],
        probabilities: Floats,
    ) -> Self:
        """Count n lesions by one image each.

        Parameters
        ----------
        places : (n,) the group of each, in [0, groups); -1 where it is in none.
        groups : number of groups.
        labels : (n,) true classes.
        probabilities : (n, n_classes) in [0, 1]; rows sum to 1.
        """
        inside = places >= 0
        group, own = places[inside], labels[inside].astype(np.int64)
        counted = _screening(task, groups, group, own, probabilities[inside])
        return cls(count((groups,), group), counted)


def _screening(task: Task, groups: int, group: Ints, labels: Ints, probabilities: Floats) -> Ints:
    """Return histograms (groups, targets, 2, SCORE_BINS) of the probabilities of targets."""
    targets = len(targets_of(task))
    having = target_members(task)[labels].astype(np.int64)
    edges = score_edges(task.n_classes)
    bins = np.searchsorted(edges, target_probabilities(probabilities, task), side="right")
    number = np.broadcast_to(np.arange(targets), bins.shape)
    every = np.broadcast_to(group[:, None], bins.shape)
    shape = (groups, targets, 2, SCORE_BINS)
    return count(shape, every.ravel(), number.ravel(), having.ravel(), bins.ravel())
