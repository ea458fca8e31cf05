"""What a model answers about test images beside their diagnosis: sets and screening flags."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from common.answers.answering import Answering, AnswerOptions, ThresholdKind
from common.answers.basis import AnswerBasis
from common.answers.operating import target_probabilities, targets_of
from common.answers.prediction_sets import sets
from common.arrays import Floats
from common.data.dataset import Dataset
from common.features.extract import content_keys
from common.models.file import Model
from common.networks.appearance_rows import appearances


@dataclass(frozen=True)
class Answered:
    """A model's answers by the default options, 1 for yes and 0 for no.

    What a model has no calibration lesions for is nan.

    Attributes
    ----------
    inside : (n, n_classes) whether a diagnosis is in an image's prediction set.
    inside_pooled : (n, n_classes) whether it is by one threshold for all, to compare with.
    flagged : (n, targets) whether the screening rule for each of the task's targets flags an image.
    distance : (n,) how unlike the training lesions an image looks.
    """

    inside: Floats
    inside_pooled: Floats
    flagged: Floats
    distance: Floats

    @classmethod
    def of(cls, model: Model, dataset: Dataset, probabilities: Floats, cache: Path) -> Self:
        """Answer about n images.

        Parameters
        ----------
        probabilities : (n, n_classes) of the model for the images, in [0, 1].
        cache : folder of what images look like.
        """
        return cls(
            _members(model.basis, probabilities, AnswerOptions.threshold),
            _members(model.basis, probabilities, "pooled"),
            _flags(model.basis, dataset, probabilities),
            _distances(model, dataset, cache.expanduser()),
        )


def _members(basis: AnswerBasis, probabilities: Floats, kind: ThresholdKind) -> Floats:
    thresholds = Answering(basis, AnswerOptions(threshold=kind)).thresholds()
    if thresholds is None:
        return np.full(probabilities.shape, np.nan)
    return sets(probabilities, thresholds).astype(np.float64)


def _distances(model: Model, dataset: Dataset, cache: Path) -> Floats:
    if (looks := model.basis.appearance) is None:
        return np.full(len(dataset), np.nan)
    spec = model.config.feature_spec
    return looks.distance(appearances(dataset, spec, cache, content_keys(dataset)))


def _flags(basis: AnswerBasis, dataset: Dataset, probabilities: Floats) -> Floats:
    looked_for = targets_of(basis.task)
    flagged = np.full((len(probabilities), len(looked_for)), np.nan)
    targets = target_probabilities(probabilities, basis.task)
    for row, points in enumerate(Answering(basis, AnswerOptions()).points_for(dataset.images)):
        for point in points:
            column = looked_for.index(point.target)
            flagged[row, column] = targets[row, column] >= point.threshold
    return flagged
