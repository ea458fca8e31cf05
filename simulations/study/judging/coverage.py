"""Where prediction sets hold what they promise: coverage by diagnosis, site, sex and age."""

from collections.abc import Callable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from common.answers.answering import AnswerOptions
from common.arrays import Bools, Floats
from common.statistics.proportions import wilson
from common.task import Task
from simulations.evaluation.answer_measures import risk_curve
from simulations.study.judging.predictions import Predictions
from simulations.study.results import ACCEPTED, GroupCoverage, Groups

WANTED = AnswerOptions.coverage
"""Share of the lesions whose set is to hold their diagnosis."""

MANY = 50
"""Lesions that a group needs to be called the worst: of fewer, chance decides."""

DIMENSIONS = ("diagnosis", "site", "sex", "age")
CROSSED = "diagnosis at a site"


def coverage_by_group(task: Task, predictions: Predictions) -> Groups:
    """Return coverage for ``DIMENSIONS`` and ``CROSSED``, all folds together; none without sets.

    Lesions whose table names no site, sex or age are in no group of it.
    """
    covered = predictions.inside[np.arange(len(predictions.label)), predictions.label]
    if np.isnan(covered).any():
        return {}
    return {
        dimension: {
            name: _covered(covered[rows], predictions.share[rows])
            for name, rows in groups_of(task, dimension, predictions)
        }
        for dimension in (*DIMENSIONS, CROSSED)
    }


def worst(groups: Mapping[str, GroupCoverage]) -> tuple[str, GroupCoverage] | None:
    """Return the group of at least ``MANY`` lesions with the least coverage, and its name."""
    many = [(name, group) for name, group in groups.items() if group.lesions >= MANY]
    return min(many, key=lambda item: item[1].value, default=None)


def referral_curve(predictions: Predictions) -> Floats:
    """Return the share that is wrong of what is answered, at ``ACCEPTED``, of its shape."""
    curve = risk_curve(predictions.label, predictions.probabilities, predictions.share[None])
    return np.array([float(curve.risk(share)[0]) for share in ACCEPTED])


def _covered(covered: Floats, share: Floats) -> GroupCoverage:
    # Shares of lesions add up to whole numbers but for rounding.
    lesions, held = round(float(share.sum()), 6), round(float(share @ covered), 6)
    return GroupCoverage(lesions, held / lesions, *wilson(held, lesions))


def groups_of(task: Task, dimension: str, predictions: Predictions) -> Iterator[tuple[str, Bools]]:
    """Yield the groups of a dimension, and which images (n,) are theirs."""
    names = _names(task, dimension, predictions)
    order: Mapping[str, Callable[[str], int]] = {"diagnosis": task.codes.index, "age": _first_year}
    for name in sorted(set(names) - {"", "unknown"}, key=order.get(dimension)):
        yield str(name), names == name


def _first_year(decade: str) -> int:
    return int(decade.split()[0])


def _names(task: Task, dimension: str, predictions: Predictions) -> NDArray[np.str_]:
    if dimension == "diagnosis":
        return np.array(task.codes)[predictions.label]
    if dimension == CROSSED:
        pairs = zip(predictions.label, predictions.source, strict=True)
        return np.array([f"{task.codes[label]} at {site}" if site else "" for label, site in pairs])
    if dimension == "age":
        return np.array([_decade(age) for age in predictions.age])
    names = {"site": predictions.source, "sex": predictions.sex}
    return names.get(dimension, predictions.localization)


def _decade(age: float) -> str:
    """Name the decade of an age in years; "" where it is missing."""
    first = 0 if np.isnan(age) else 10 * int(age // 10)
    return "" if np.isnan(age) else f"{first} to {first + 9}"
