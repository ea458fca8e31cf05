"""Diagnoses that a model gives a site's images without one, so that they can be trained on.

Class-balanced self-training: Zou, Yu, Kumar, Wang, "Unsupervised domain adaptation for semantic
segmentation via class-balanced self-training", ECCV 2018, equation 7: of each class the same share
is labelled, the surest first. One threshold for all classes would label hardly anything but the
most frequent one. The frequencies are those of the training, or of the site's own images where
these tell them.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from common.answers.basis import AnswerBasis
from common.answers.prevalence import DISAGREEMENT, disagreement, estimate, for_frequencies
from common.arrays import Bools, Floats
from common.data.dataset import Dataset
from common.data.image import PSEUDO_LABEL, Image
from common.models.file import Model
from common.statistics.calibration import probabilities

SHARE = 0.5
"""Share of each diagnosis's lesions that get it."""


def pseudo_labelled(
    model: Model, dataset: Dataset, cache: Path, share: float = SHARE
) -> tuple[Image, ...]:
    """Return the images of a folder that have no diagnosis, with that of their lesion.

    A lesion that has one in another row has that; else the model gives it one, by the mean over
    its images, if it is among the surest. The others are left out.

    Parameters
    ----------
    cache : folder of features, which a training on these images needs too.
    share : of the lesions that are expected of each diagnosis, in [0, 1].

    Raises
    ------
    DataError
        If an image cannot be read.
    """
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
    mean = np.zeros((len(names), model.task.n_classes))
    np.add.at(mean, lesion, chances)
    mean /= np.bincount(lesion)[:, None]
    frequencies = _frequencies(model.basis, mean)
    mean = for_frequencies(mean, model.basis.base_rates, frequencies)
    sure, label = surest(mean, frequencies, share), mean.argmax(axis=1)
    for image, number in zip(new, lesion, strict=True):
        if sure[number]:
            code = model.task.codes[label[number]]
            found.append(replace(image, dx=code, dx_type=PSEUDO_LABEL))
    return tuple(found)


def surest(chances: Floats, frequencies: Floats, share: float) -> Bools:
    """Return which lesions (n,) are the surest of their likeliest class.

    Of each class at most ``share`` times as many as are expected among the n.

    Parameters
    ----------
    chances : (n, n_classes) probabilities; rows sum to 1.
    frequencies : (n_classes,) expected ones, which sum to 1.
    """
    label, sure = chances.argmax(axis=1), np.zeros(len(chances), dtype=np.bool_)
    for k, frequency in enumerate(frequencies):
        own = np.flatnonzero(label == k)
        most = round(share * frequency * len(chances))
        sure[own[np.argsort(-chances[own, k], kind="stable")[:most]]] = True
    return sure


def _frequencies(basis: AnswerBasis, chances: Floats) -> Floats:
    """Return the frequencies (n_classes,) of the lesions where they are told, else the training's.

    Parameters
    ----------
    chances : (n, n_classes) probabilities at the frequencies of the training.
    """
    found = estimate(chances, basis.base_rates)
    likeliest = np.bincount(chances.argmax(axis=1), minlength=chances.shape[1]) / len(chances)
    differ = disagreement(found, likeliest, basis.lesions.confusion) > DISAGREEMENT
    return found.frequencies if found.identifiable and not differ else basis.base_rates
