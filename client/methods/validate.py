"""A site's answers while a finished linear model is judged: counts over its lesions."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from client.egress.questions import Question
from client.site import Site
from common.answers.counts import AnswerCounts
from common.arrays import Floats, Ints
from common.config.run import RunConfig
from common.data.dataset import Dataset
from common.errors import Reason, RefusalError
from common.features.extract import extract
from common.models.linear import average_views, check_map, decision_values
from common.statistics.calibration import decisions, probabilities
from common.statistics.metrics import Evaluation
from common.statistics.sums import Sums
from common.svm.feature_map import FeatureMap
from common.wire.messages import Value


def describe(site: Site) -> Mapping[str, Value]:
    """Describe this site's features; compute those that are not on disk."""
    return {"n_features": site.n_features, "features": site.config.feature_spec.key}


def prepare(dataset: Dataset, config: RunConfig, cache: Path) -> None:
    """Compute the frozen features of images."""
    extract(dataset, config.feature_spec, cache, progress=True)


def answer(site: Site, question: Question) -> Sums:
    """Count how the coordinator's model does on this site's lesions.

    Raises
    ------
    RefusalError
        If what came is no linear model.
    """
    arrays = {n: np.asarray(a, dtype=np.float64) for n, a in question.arrays.items()}
    images, labels = _judged(site)
    scores = _scores(site, images, arrays)
    chances = probabilities(scores, arrays["calibration"])
    if question.name == "answers":
        chosen = site.one_a_lesion[images]
        return AnswerCounts.measure(site.config.task, labels[chosen], chances[chosen])
    called = decisions(scores, arrays["calibration"], arrays["base_rates"])
    return Evaluation.measure(labels, called, chances)


def _judged(site: Site) -> tuple[Ints, Ints]:
    """Return the numbers and the labels (n,) of the images that are judged."""
    every = site.config.lesions == "all"
    images = np.arange(len(site.dataset)) if every else np.flatnonzero(site.held_out)
    return images, site.dataset.labels[images]


def _scores(site: Site, images: Ints, arrays: Mapping[str, Floats]) -> Floats:
    """Return decision values (n, n_classes) of the images by a linear model's arrays."""
    try:
        check_map(arrays)
    except ValueError as error:
        raise RefusalError(Reason.FORM, f"what came is no linear model: {error}") from error
    feature_map = FeatureMap.from_record(arrays)
    return decision_values(
        average_views(feature_map, site.features.predict[images]), arrays["weights"]
    )
