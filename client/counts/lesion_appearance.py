"""What a site says of how its lesions look: moments of training lesions, distances of others."""

import numpy as np

from client.egress.questions import Question
from client.site import Site
from common.answers.appearance import Appearance, DistanceCounts
from common.statistics.moments import Moments
from common.statistics.sums import Sums

QUESTIONS = ("appearance", "distances")


def answer_appearance(site: Site, question: Question) -> Sums:
    """Answer one of ``QUESTIONS``."""
    if question.name == "appearance":
        return _moments(site)
    mean, whitening = (
        np.asarray(question.arrays[name], dtype=np.float64) for name in ("mean", "whitening")
    )
    images = site.part("validation")
    chosen = images[site.one_a_lesion[images]]
    return DistanceCounts.measure(Appearance(mean, whitening).distance(site.appearance[chosen]))


def _moments(site: Site) -> Moments:
    """Sum over training images; the images of a lesion share a weight of 1."""
    images = site.part("train")
    lesions = site.dataset.by_lesion
    weights = 1.0 / lesions.sizes[lesions.index[images]]
    return Moments.measure(site.appearance[images], np.zeros(len(images), np.int64), weights, 1)
