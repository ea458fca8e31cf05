"""A site's counts of how scores do on its images: to calibrate them, and to judge a model."""

import numpy as np

from client.counts.group_screening import screening_by_group
from client.egress.questions import Question
from client.site import Site
from common.answers.counts import AnswerCounts
from common.arrays import Floats, Ints
from common.statistics.calibration import calibration_sums, decisions, probabilities
from common.statistics.metrics import Evaluation
from common.statistics.sums import Sums

RULE = ("calibration", "base_rates")
"""A question's arrays that make probabilities and decisions of scores."""


def judge(site: Site, question: Question, images: Ints, scores: Floats) -> Sums:
    """Answer one of the questions about scores of images that their model has not seen.

    Parameters
    ----------
    question : ``calibrate``, ``answers``, ``screening`` or ``evaluate``.
    images : (n,) numbers of the site's images.
    scores : (n, n_classes) of these.
    """
    labels = site.dataset.labels[images]
    calibration, base_rates = (np.asarray(question.arrays[name], dtype=np.float64) for name in RULE)
    if question.name == "calibrate":
        return calibration_sums(scores, labels, calibration)
    chances = probabilities(scores, calibration)
    if question.name == "answers":
        chosen = site.one_a_lesion[images]
        return AnswerCounts.measure(site.config.task, labels[chosen], chances[chosen])
    if question.name == "screening":
        return screening_by_group(site, images, chances)
    return Evaluation.measure(labels, decisions(scores, calibration, base_rates), chances)
