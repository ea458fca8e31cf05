"""A site's answers while a finished model is judged: counts over its lesions."""

from collections.abc import Mapping

import numpy as np

from client import frozen_features
from client.counts.linear_scores import linear_scores
from client.egress.questions import Question
from client.operator import pins
from client.site import Site
from client.state import kept_array
from common.answers.counts import AnswerCounts
from common.answers.group_counts import GroupCounts
from common.arrays import Floats, Ints
from common.errors import Reason, RefusalError
from common.statistics.calibration import decisions, probabilities
from common.statistics.metrics import Evaluation
from common.statistics.sums import Nothing, Sums
from common.storage.verified import write_array
from common.wire.messages import Value

prepare = frozen_features.prepare


def describe(site: Site) -> Mapping[str, Value]:
    """Say which network this site has; what it computes depends on the model, which is to come."""
    return {"features": site.config.feature_spec.key}


def answer(site: Site, question: Question) -> Sums:
    """Score this site's lesions by the coordinator's model, or count how the model does on them.

    Raises
    ------
    RefusalError
        If what came is no model, or none came before.
    """
    images, labels = _judged(site)
    file = site.state.scratch(question.run) / "scores.npy"
    if question.name in ("linear", "network"):
        of_model = linear_scores if question.name == "linear" else _network_scores
        write_array(file, of_model(site, images, question))
        return Nothing()
    missing = "no model was sent in this run; send the one to judge first"
    scores = np.asarray(kept_array(file, missing), dtype=np.float64)
    rule = {name: np.asarray(array, np.float64) for name, array in question.arrays.items()}
    chances = probabilities(scores, rule["calibration"])
    if question.name == "answers":
        chosen = site.one_a_lesion[images]
        return AnswerCounts.measure(site.config.task, labels[chosen], chances[chosen])
    called = decisions(scores, rule["calibration"], rule["base_rates"])
    if question.name == "groups":
        return _by_group(site, images, labels, called, chances)
    return Evaluation.measure(labels, called, chances)


def _by_group(site: Site, images: Ints, labels: Ints, called: Ints, chances: Floats) -> GroupCounts:
    """Count the images by the run's groups; those of few lesions are counted together."""
    groups, task = site.config.counted_groups, site.config.task
    if not groups.dimensions:
        raise RefusalError(Reason.ORDER, "this run counts no groups; its setting 'by' names none")
    rows = [site.dataset.images[i] for i in images]
    lesions = site.dataset.by_lesion.index[images]
    places = groups.of(rows, lesions, task, site.least_group)
    return GroupCounts.measure(task, places, groups.size, lesions, labels, called, chances)


def _judged(site: Site) -> tuple[Ints, Ints]:
    """Return the numbers and the labels (n,) of the images that are judged."""
    every = site.config.lesions == "all"
    images = np.arange(len(site.dataset)) if every else np.flatnonzero(site.held_out)
    return images, site.dataset.labels[images]


def _network_scores(site: Site, images: Ints, question: Question) -> Floats:
    """Return logits (n, n_classes) of the images by a network's trained tensors."""
    from client.counts.network_scores import scores  # a linear model needs no PyTorch

    pins.check_network(site)
    tensors = {n: np.asarray(a, dtype=np.float32) for n, a in question.arrays.items()}
    return scores(site, tensors, images, site.config.predictions)
