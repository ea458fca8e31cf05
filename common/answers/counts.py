"""What lesions add to the thresholds of a model's answers: histograms of its probabilities.

Every lesion gives one image, by chance. A new lesion's image is exchangeable with these, which the
promises of prediction sets and screening rules rest on. The mean over a lesion's images would be
less noisy than the one image at the bedside, and the promises too good.
"""

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from common.answers.answer import TARGETS
from common.arrays import Bools, Floats, Ints
from common.statistics.confusion import count
from common.statistics.metrics import SCORE_BINS, score_edges
from common.statistics.sums import Sums
from common.task import DIAGNOSES, MALIGNANT, N_CLASSES


@dataclass(frozen=True)
class AnswerCounts(Sums):
    """Histograms over lesions; the bins are those of ``score_edges(N_CLASSES)``.

    Attributes
    ----------
    probability : (n_classes, 2, SCORE_BINS) for each class its probability, over the lesions of the
        other classes (0) and over its own (1).
    cumulative : (n_classes, 2, SCORE_BINS) the same of its adaptive score, of
        :func:`adaptive_scores`.
    screening : (targets, 2, SCORE_BINS) for each of ``TARGETS`` its probability, over the lesions
        without it (0) and with it (1).
    likeliest : (2, SCORE_BINS) the largest probability, over the lesions whose likeliest diagnosis
        is wrong (0) and right (1).
    """

    nonnegative: ClassVar[tuple[str, ...]] = ("probability", "cumulative", "screening", "likeliest")
    counted: ClassVar[str | None] = "likeliest"

    probability: Ints
    cumulative: Ints
    screening: Ints
    likeliest: Ints

    @classmethod
    def zero(cls) -> Self:
        """Return the counts of no lesions."""
        return cls.measure(np.zeros(0, dtype=np.int64), np.zeros((0, N_CLASSES)))

    @classmethod
    def measure(cls, labels: Ints, probabilities: Floats) -> Self:
        """Count lesions by the probabilities of one image each.

        Parameters
        ----------
        labels : (n,) true classes.
        probabilities : (n, n_classes) in [0, 1]; rows sum to 1.
        """
        own = labels[:, None] == np.arange(N_CLASSES)
        likeliest = probabilities.argmax(axis=1)
        right = (likeliest == labels)[:, None]
        targets = target_probabilities(probabilities)
        with_target = target_members()[labels]
        largest = probabilities.max(axis=1, keepdims=True)
        return cls(
            probability=_histograms(own, probabilities),
            cumulative=_histograms(own, adaptive_scores(probabilities)),
            screening=_histograms(with_target, targets),
            likeliest=_histograms(right, largest)[0],
        )

    @property
    def lesions(self) -> Ints:
        """Number of lesions of each class, (n_classes,)."""
        return np.asarray(self.probability[:, 1].sum(axis=1))


def adaptive_scores(probabilities: Floats) -> Floats:
    """Return for each class the summed probability of all classes that are as likely or likelier.

    Romano, Sesia and Candes, "Classification with valid and adaptive coverage", NeurIPS 2020,
    equation 4 without randomisation.

    Parameters
    ----------
    probabilities : (n, n_classes).

    Returns
    -------
    (n, n_classes) in (0, 1].
    """
    order = np.argsort(-probabilities, axis=1, kind="stable")
    summed = np.cumsum(np.take_along_axis(probabilities, order, axis=1), axis=1)
    scores = np.empty_like(summed)
    np.put_along_axis(scores, order, np.minimum(summed, 1.0), axis=1)
    return scores


def target_members() -> Bools:
    """Return which class (n_classes, targets) belongs to which of ``TARGETS``."""
    members = {"mel": ("mel",), "malignant": MALIGNANT}
    return np.array([[code in members[target] for target in TARGETS] for code in DIAGNOSES])


def target_probabilities(probabilities: Floats) -> Floats:
    """Return the probabilities (n, targets) of ``TARGETS``, given those (n, n_classes) of classes.

    They are sums, cut off at 1, which rounding may pass.
    """
    return np.minimum(probabilities @ target_members(), 1.0)


def bins(values: NDArray[np.floating]) -> Ints:
    """Return the bins of ``values`` in [0, 1], of any shape; the same in any batch."""
    return np.searchsorted(score_edges(N_CLASSES), values, side="right")


def _histograms(own: Bools, values: Floats) -> Ints:
    """Return histograms (columns, 2, SCORE_BINS) of columns (n, columns), of others and own."""
    columns = np.broadcast_to(np.arange(values.shape[1]), values.shape)
    shape = (values.shape[1], 2, SCORE_BINS)
    own = np.broadcast_to(own, values.shape)
    return count(shape, columns.ravel(), own.ravel().astype(np.int64), bins(values).ravel())
