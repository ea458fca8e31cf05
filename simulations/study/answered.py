"""What a model answers about test images beside their diagnosis: sets and screening flags."""

from dataclasses import dataclass
from typing import Self

import numpy as np

from common.answers.answer import TARGETS
from common.answers.answering import Answering, AnswerOptions, ThresholdKind
from common.answers.basis import AnswerBasis
from common.answers.operating import target_probabilities
from common.answers.prediction_sets import sets
from common.arrays import Floats


@dataclass(frozen=True)
class Answered:
    """A model's answers by the default options, 1 for yes and 0 for no.

    What a model has no calibration lesions for is nan.

    Attributes
    ----------
    inside : (n, n_classes) whether a diagnosis is in an image's prediction set.
    inside_pooled : (n, n_classes) whether it is by one threshold for all, to compare with.
    flagged : (n, targets) whether the screening rule for each of ``TARGETS`` flags an image.
    """

    inside: Floats
    inside_pooled: Floats
    flagged: Floats

    @classmethod
    def of(cls, basis: AnswerBasis, probabilities: Floats) -> Self:
        """Answer about images by a model's ``probabilities`` (n, n_classes) in [0, 1]."""
        return cls(
            _members(basis, probabilities, AnswerOptions.threshold),
            _members(basis, probabilities, "pooled"),
            _flags(basis, probabilities),
        )


def _members(basis: AnswerBasis, probabilities: Floats, kind: ThresholdKind) -> Floats:
    thresholds = Answering(basis, AnswerOptions(threshold=kind)).thresholds()
    if thresholds is None:
        return np.full(probabilities.shape, np.nan)
    return sets(probabilities, thresholds).astype(np.float64)


def _flags(basis: AnswerBasis, probabilities: Floats) -> Floats:
    flagged = np.full((len(probabilities), len(TARGETS)), np.nan)
    targets = target_probabilities(probabilities)
    for point in Answering(basis, AnswerOptions()).points:
        column = TARGETS.index(point.target)
        flagged[:, column] = targets[:, column] >= point.threshold
    return flagged
