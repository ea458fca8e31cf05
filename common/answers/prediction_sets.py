"""Prediction sets: which diagnoses cannot be excluded, once thresholds are known.

There are two scores. "probability" is the diagnosis's own: Sadinle, Lei, Wasserman, "Least
ambiguous set-valued classifiers with bounded error levels", JASA 2019. "adaptive" is the summed
probability of all likelier diagnoses: Romano, Sesia, Candes, "Classification with valid and
adaptive coverage", NeurIPS 2020, with the diagnosis that crosses the threshold always in the set
instead of by chance. (If its own probability were summed too, what a model knows for sure would
have the worst scores, and the sets of all others would grow.)
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from common.arrays import Bools, Floats, Ints

Score = Literal["probability", "adaptive"]


@dataclass(frozen=True)
class Thresholds:
    """For each class the score from which on it is in a set.

    Attributes
    ----------
    score : which score they are compared with.
    values : (n_classes,) in [0, 1]: the least probability of a class that is in the set, or its
        largest adaptive score.
    coverage : share of new lesions whose set holds their diagnosis, in (0, 1).
    lesions : (n_classes,) calibration lesions behind each value, at least 0.
    without_guarantee : (n_classes,) classes for which less is promised than for the others, since
        too few calibration lesions have them.
    """

    score: Score
    values: Floats
    coverage: float
    lesions: Ints
    without_guarantee: Bools


def scores(probabilities: Floats, score: Score) -> Floats:
    """Return the score of every class, in [0, 1].

    Parameters
    ----------
    probabilities : (n, n_classes) whose rows sum to 1.
    score : which.

    Returns
    -------
    (n, n_classes); classes that are equally likely have equal scores.
    """
    if score == "probability":
        return probabilities
    p = probabilities[:, None, :]
    likelier = p > probabilities[:, :, None]
    return np.asarray(np.minimum(np.where(likelier, p, 0.0).sum(axis=2), 1.0))


def widest(first: Thresholds, second: Thresholds) -> Thresholds:
    """Return the thresholds of sets that hold what either's sets hold.

    So what each of them promises is promised: of `by_class` and `by_site`, that a class and the
    site are covered.
    """
    wider = np.minimum if first.score == "probability" else np.maximum
    values = wider(first.values, second.values)
    return replace(
        first,
        values=values,
        lesions=np.where(values == first.values, first.lesions, second.lesions),
        without_guarantee=first.without_guarantee | second.without_guarantee,
    )


def sets(probabilities: Floats, thresholds: Thresholds) -> Bools:
    """Return which classes cannot be excluded.

    Parameters
    ----------
    probabilities : (n, n_classes) whose rows sum to 1.
    thresholds : of the same classes.

    Returns
    -------
    (n, n_classes); the likeliest class is in each set, so that none is empty.
    """
    if thresholds.score == "probability":
        return members(probabilities, thresholds.values)
    return _with_likeliest(scores(probabilities, "adaptive") <= thresholds.values, probabilities)


def members(probabilities: Floats, least: Floats) -> Bools:
    """Return which classes cannot be excluded by thresholds of the score "probability".

    Parameters
    ----------
    probabilities : (n, n_classes) whose rows sum to 1.
    least : (n_classes,) least probability of a class in a set.

    Returns
    -------
    (n, n_classes); the likeliest class is in each set.
    """
    return _with_likeliest(probabilities >= least, probabilities)


def _with_likeliest(inside: Bools, probabilities: Floats) -> Bools:
    inside[np.arange(len(inside)), probabilities.argmax(axis=1)] = True
    return inside
