"""What lesions add to the thresholds of a model's answers: histograms of its probabilities.

Every lesion gives one image, by chance. A new lesion's image is exchangeable with these, which the
promises of prediction sets and screening rules rest on. The mean over a lesion's images would be
less noisy than the one image at the bedside, and the promises too good.
"""

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from common.answers.operating import target_members, target_probabilities
from common.answers.prediction_sets import scores
from common.arrays import Bools, Floats, Ints
from common.statistics.confusion import confusion_matrix, count
from common.statistics.metrics import SCORE_BINS, score_edges
from common.statistics.sums import Sums
from common.task import Task


@dataclass(frozen=True)
class AnswerCounts(Sums):
    """Histograms over lesions; the bins are those of ``score_edges(n_classes)``.

    Attributes
    ----------
    probability : (n_classes, 2, SCORE_BINS) for each class its probability, over the lesions of the
        other classes (0) and over its own (1).
    cumulative : (n_classes, 2, SCORE_BINS) the same of its adaptive score
        (:mod:`common.answers.prediction_sets`).
    screening : (targets, 2, SCORE_BINS) for each of the task's targets its probability, over
        the lesions without it (0) and with it (1).
    confidence : (2, SCORE_BINS) the largest probability, over the lesions whose likeliest diagnosis
        is wrong (0) and right (1).
    confusion : (n_classes, n_classes) numbers of lesions by [true, likeliest] class.
    """

    nonnegative: ClassVar[tuple[str, ...]] = (
        "probability",
        "cumulative",
        "screening",
        "confidence",
        "confusion",
    )
    counted: ClassVar[str | None] = "confusion"

    probability: Ints
    cumulative: Ints
    screening: Ints
    confidence: Ints
    confusion: Ints

    @classmethod
    def zero(cls, task: Task) -> Self:
        """Return the counts of no lesions."""
        return cls.measure(task, np.zeros(0, dtype=np.int64), np.zeros((0, task.n_classes)))

    @classmethod
    def measure(cls, task: Task, labels: Ints, probabilities: Floats) -> Self:
        """Count lesions by the probabilities of one image each.

        Parameters
        ----------
        labels : (n,) true classes.
        probabilities : (n, n_classes) in [0, 1]; rows sum to 1.
        """
        own = labels[:, None] == np.arange(task.n_classes)
        likeliest = probabilities.argmax(axis=1)
        right = (likeliest == labels)[:, None]
        with_target = target_members(task)[labels]
        largest = probabilities.max(axis=1, keepdims=True)
        targets = target_probabilities(probabilities, task)
        edges = score_edges(task.n_classes)
        return cls(
            probability=_histograms(own, probabilities, edges),
            cumulative=_histograms(own, scores(probabilities, "adaptive"), edges),
            screening=_histograms(with_target, targets, edges),
            confidence=_histograms(right, largest, edges)[0],
            confusion=confusion_matrix(labels, likeliest, task.n_classes),
        )

    @property
    def lesions(self) -> Ints:
        """Number of lesions of each class, (n_classes,)."""
        return np.asarray(self.confusion.sum(axis=1))


def _histograms(own: Bools, values: Floats, edges: Floats) -> Ints:
    """Return histograms (columns, 2, SCORE_BINS) of columns (n, columns), of others and own.

    Parameters
    ----------
    own : (n, columns), or one column for all.
    edges : (SCORE_BINS - 1,) between the bins.
    """
    columns = np.broadcast_to(np.arange(values.shape[1]), values.shape)
    shape = (values.shape[1], 2, SCORE_BINS)
    own = np.broadcast_to(own, values.shape)
    # Comparing with fixed edges puts a value into the same bin whatever batch it comes in.
    bins = np.searchsorted(edges, values, side="right")
    return count(shape, columns.ravel(), own.ravel().astype(np.int64), bins.ravel())
