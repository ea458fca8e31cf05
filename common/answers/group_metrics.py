"""How a model serves each group of lesions, from counts that were added over sites."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from common.answers.answer import Target
from common.answers.answering import Answering, AnswerOptions
from common.answers.basis import AnswerBasis
from common.answers.group_counts import GroupCounts
from common.answers.operating import OperatingPoint, targets_of
from common.arrays import Floats, Ints
from common.data.counted_groups import SITE, CountedGroups
from common.json_types import Json
from common.statistics.confusion import ConfusionMetrics, ratio
from common.statistics.metrics import area_under_curve, calibration_error, score_edges
from common.task import Task

METRICS = (
    "balanced_accuracy",
    "melanoma_sensitivity",
    "malignant_sensitivity",
    "malignant_specificity",
    "auc",
    "calibration_error",
)
"""The metrics of a group, all in [0, 1]; the third and the fourth are of one screening rule."""

_SENSITIVITY: Mapping[Target, str] = {
    "mel": "melanoma_sensitivity",
    "malignant": "malignant_sensitivity",
}


def group_metrics(
    basis: AnswerBasis,
    groups: CountedGroups,
    total: GroupCounts,
    by_site: Mapping[str, GroupCounts],
) -> dict[str, Json]:
    """Return the metrics of each group that has lesions, by dimension and group.

    Parameters
    ----------
    basis : of the model that was judged; it has the thresholds of the screening rules.
    groups : what was counted.
    total : counts of all sites.
    by_site : of each site; none where the coordinator saw none.

    Returns
    -------
    For each group "lesions" and "images", "diagnoses" that it has, and each of `METRICS`; None for
    one that has no lesion or no rule.
    """
    found: dict[str, Json] = {}
    points = Answering(basis, AnswerOptions()).points
    for dimension, place in groups.places():
        if dimension.name == SITE:
            parts = {name: (counts, place.start) for name, counts in by_site.items()}
        else:
            names = enumerate(groups.names(dimension), place.start)
            parts = {name: (total, number) for number, name in names}
        found[dimension.name] = {
            name: dict(_described(basis.task, points, counts, number))
            for name, (counts, number) in parts.items()
            if counts.lesions[number]
        }
    return found


def _described(
    task: Task, points: Sequence[OperatingPoint], counts: GroupCounts, number: int
) -> Iterator[tuple[str, Json]]:
    confusion = counts.confusion[number]
    present = np.flatnonzero(confusion.sum(axis=1))
    yield "lesions", int(counts.lesions[number])
    yield "images", int(confusion.sum())
    yield "diagnoses", [task.codes[label] for label in present]
    found = {**_plain(counts, number), **_screened(task, points, counts.screening[number])}
    for name in METRICS:
        value = float(found.get(name, np.array(np.nan)))
        yield name, None if np.isnan(value) else value


def _plain(counts: GroupCounts, number: int) -> dict[str, Floats]:
    confusion = counts.confusion[number]
    surplus = counts.calibration[number, 1] - counts.confidence[number]
    return {
        "balanced_accuracy": ConfusionMetrics.compute(confusion).balanced_accuracy,
        "calibration_error": calibration_error(surplus, confusion.sum()),
    }


def _screened(task: Task, points: Sequence[OperatingPoint], histograms: Ints) -> dict[str, Floats]:
    """Return what the screening rules give, and the area under the curve of malignant or not."""
    found, targets = {}, targets_of(task)
    for point in points:
        without, having = histograms[targets.index(point.target)]
        first = int(np.searchsorted(score_edges(task.n_classes), point.threshold, side="right"))
        found[_SENSITIVITY[point.target]] = ratio(having[first:].sum(), having.sum())
        if point.target == "malignant":
            found["malignant_specificity"] = ratio(without[:first].sum(), without.sum())
    if "malignant" in targets:
        found["auc"] = area_under_curve(*histograms[targets.index("malignant")])
    return found
