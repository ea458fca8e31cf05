"""Diagnoses that a model gives a site's images without one, so that they can be trained on.

Self-training: Lee, "Pseudo-label: the simple and efficient semi-supervised learning method for deep
neural networks", ICML workshop 2013; with a threshold for each class, as one for all would label
hardly anything but the most frequent class (Zhang et al., "FlexMatch", NeurIPS 2021). Here each
class's threshold is the probability from which on a stated share of the calibration lesions were
what the model said.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from common.answers.basis import AnswerBasis
from common.arrays import Floats
from common.data.dataset import Dataset
from common.data.image import PSEUDO_LABEL, Image
from common.errors import ConfigError
from common.models.file import Model
from common.statistics.calibration import probabilities
from common.statistics.metrics import score_edges

PRECISION = 0.9
"""Share of the calibration lesions that are to be right above a threshold."""

_LEAST = 10
"""Calibration lesions above a threshold from which on their share is believed."""


def thresholds(basis: AnswerBasis, precision: float = PRECISION) -> Floats:
    """Return the probability (n_classes,) from which on a class is believed; inf where it never is.

    Parameters
    ----------
    precision : in [0, 1], of the calibration lesions with at least this probability.

    Raises
    ------
    ConfigError
        If the model has no calibration lesions.
    """
    if not basis.lesions.lesions.any():
        raise ConfigError(
            "the model has no calibration lesions by which to tell how sure it must be; use one of "
            "head=svm or method=finetune"
        )
    others, own = np.moveaxis(basis.lesions.probability[..., ::-1].cumsum(axis=-1)[..., ::-1], 1, 0)
    above = others + own
    right = np.divide(own, above, out=np.zeros(own.shape), where=above > 0)
    believed = (right >= precision) & (above >= _LEAST)
    edges = np.concatenate([[0.0], score_edges(basis.task.n_classes)])
    lowest = np.where(believed.any(axis=1), edges[believed.argmax(axis=1)], np.inf)
    return np.asarray(lowest)


def pseudo_labelled(
    model: Model, dataset: Dataset, cache: Path, precision: float = PRECISION
) -> tuple[Image, ...]:
    """Return the images of a folder that have no diagnosis, with that of their lesion.

    A lesion that has one in another row has that; else the model gives it one, by the mean over
    its images, where the mean reaches the threshold. The others are left out.

    Parameters
    ----------
    cache : folder of features, which a training on these images needs too.
    precision : in [0, 1], of the calibration lesions above a threshold.

    Raises
    ------
    ConfigError
        If the model cannot tell how sure it must be.
    DataError
        If an image cannot be read.
    """
    least, codes = thresholds(model.basis, precision), model.task.codes
    known = {image.lesion_id: image for image in dataset.images}
    # One with a text has a diagnosis, which the task does not have.
    missing = [image for image in dataset.undiagnosed if not image.dx]
    new = tuple(image for image in missing if image.lesion_id not in known)
    found = [
        replace(image, dx=other.dx, dx_type=other.dx_type, split=other.split)
        for image in missing
        if (other := known.get(image.lesion_id)) is not None
    ]
    if not new:
        return tuple(found)
    scores = model.dataset_scores(replace(dataset, images=new), cache)
    chances = probabilities(scores, model.basis.calibration)
    names, lesion = np.unique([image.lesion_id for image in new], return_inverse=True)
    total = np.zeros((len(names), model.task.n_classes))
    np.add.at(total, lesion, chances)
    mean = total / np.bincount(lesion)[:, None]
    label = mean.argmax(axis=1)
    sure = mean.max(axis=1) >= least[label]
    for image, number in zip(new, lesion, strict=True):
        if sure[number]:
            found.append(replace(image, dx=codes[label[number]], dx_type=PSEUDO_LABEL))
    return tuple(found)
