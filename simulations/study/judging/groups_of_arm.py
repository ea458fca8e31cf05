"""A study's arm on groups of lesions, all folds together."""

import numpy as np

from common.task import Task
from simulations.evaluation.groups.figures import ByGroup, Grouping, by_group
from simulations.evaluation.groups.measures import Records
from simulations.evaluation.groups.weights import lesion_weights
from simulations.study.judging.coverage import groups_of
from simulations.study.judging.predictions import Predictions

DIMENSIONS = ("sex", "age", "localization", "site")

_SEED, _REPEATS = 7, 400


def arm_by_group(task: Task, predictions: Predictions) -> ByGroup:
    """Judge an arm on the groups of ``DIMENSIONS``, by the same resamples as every other."""
    labels = predictions.label
    weights = lesion_weights(labels, predictions.lesion, _SEED, _REPEATS)
    records = Records.of(
        task,
        labels,
        predictions.predicted,
        predictions.probabilities,
        predictions.answered,
        weights[0],
    )
    groupings = [_grouping(task, dimension, predictions) for dimension in DIMENSIONS]
    return by_group(records, weights, groupings)


def _grouping(task: Task, dimension: str, predictions: Predictions) -> Grouping:
    group = np.full(len(predictions.label), "", dtype=object)
    names = []
    for name, rows in groups_of(task, dimension, predictions):
        group[rows] = name
        names.append(name)
    return Grouping(dimension, names, group.astype(np.str_))
