"""Membership inference: was this lesion trained on? LiRA with shadow classifiers.

Carlini et al., "Membership inference attacks from first principles", IEEE S&P 2022. Many
classifiers are trained, each on a random half of the lesions. Of every lesion two normal
distributions are learnt, of its score from classifiers that were trained on it and from those that
were not, and the score that a classifier under attack gives is compared with both: the likelihood
ratio of equation 4, with one variance for both, since shadows are few (their section VI-C).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from common.arrays import Bools, Floats, Ints
from simulations.evaluation.intervals import Interval, interval
from simulations.evaluation.measures import RocCurve

Fit = Callable[[Bools], Floats]
"""Trains on the members (n,) of n lesions and returns scores (n, n_classes) of all of them."""

SHADOWS = 32
RATES = (0.001, 0.01)
"""False-positive rates at which the true-positive rate is given."""

_REPEATS = 200
_LEAST_VARIANCE = 1e-12
_ROUNDING = 1e-9


@dataclass(frozen=True)
class AtRate:
    """True-positive rate at a false-positive rate, the mean over the classifiers attacked.

    Attributes
    ----------
    rate : false-positive rate.
    allowed : lesions that may be taken for members by mistake, of each classifier's.
    found : None where the rate is less than one lesion, and cannot be measured.
    interval : 95 %, bootstrapped over lesions.
    """

    rate: float
    allowed: int
    found: float | None
    interval: Interval | None


@dataclass(frozen=True)
class Membership:
    """How well members are distinguished from others; the AUC of chance is 0.5.

    Attributes
    ----------
    classifiers : how many were trained; each is attacked with all others as shadows.
    trained : the classifiers and what they were trained on, in words.
    lesions : half are members of each classifier.
    auc, interval : mean over the classifiers, and 95 %, bootstrapped over lesions.
    """

    classifiers: int
    trained: str
    lesions: int
    auc: float
    interval: Interval
    rates: list[AtRate]


def attack(fit: Fit, y: Ints, trained: str, seed: int, shadows: int = SHADOWS) -> Membership:
    """Train shadows on halves of the lesions with labels ``y`` (n,), and attack each."""
    members = halves(shadows, len(y), np.random.default_rng([seed, 2]))
    margins = np.stack([log_odds(fit(inside), y) for inside in members])
    ratios = likelihood_ratios(members, margins)
    return measure(members, ratios, trained, seed)


def halves(shadows: int, n: int, rng: np.random.Generator) -> Bools:
    """Draw who is a member of which classifier, (shadows, n): each lesion of half of them."""
    ranks = rng.random((shadows, n)).argsort(axis=0).argsort(axis=0)
    return np.asarray(ranks < shadows // 2)


def log_odds(scores: Floats, y: Ints) -> Floats:
    """Return the log-odds (n,) of class ``y`` (n,) by the softmax of ``scores`` (n, n_classes)."""
    own = np.equal.outer(y, np.arange(scores.shape[1]))
    others = np.where(own, -np.inf, scores)
    highest = others.max(axis=1)
    rest = highest + np.log(np.exp(others - highest[:, None]).sum(axis=1))
    return np.asarray(scores[own] - rest)


def likelihood_ratios(members: Bools, margins: Floats) -> Floats:
    """Return the logarithms of the likelihood ratios (shadows, n), above 0 for members.

    Each classifier's are by the distributions that all others give.

    Parameters
    ----------
    members : (shadows, n), at least 3 classifiers with each lesion and 3 without.
    margins : (shadows, n) a lesion's score from a classifier; normal by assumption.
    """
    ratios = np.empty_like(margins)
    for target, value in enumerate(margins):
        shadows, theirs = np.delete(members, target, axis=0), np.delete(margins, target, axis=0)
        ratios[target] = likelihood_ratio(shadows, theirs, value)
    return ratios


def likelihood_ratio(members: Bools, margins: Floats, value: Floats) -> Floats:
    """Return the logarithms of the likelihood ratios (n,) of a classifier's scores ``value`` (n,).

    Parameters
    ----------
    members : (shadows, n) of the shadow classifiers, at least 2 with each lesion and 2 without.
    margins : (shadows, n) a lesion's score from a shadow classifier.
    """
    mean_in = np.nanmean(np.where(members, margins, np.nan), axis=0)
    mean_out = np.nanmean(np.where(members, np.nan, margins), axis=0)
    errors = margins - np.where(members, mean_in, mean_out)
    variance = (errors**2).sum(axis=0) / (len(margins) - 2) + _LEAST_VARIANCE
    return np.asarray(((value - mean_out) ** 2 - (value - mean_in) ** 2) / (2 * variance))


def measure(members: Bools, ratios: Floats, trained: str, seed: int) -> Membership:
    """Measure how well ``ratios`` (classifiers, n) identify ``members`` (classifiers, n)."""
    count, n = members.shape
    rng = np.random.default_rng([seed, 3])
    # The first row is the lesions as they are.
    weights = np.vstack([np.ones(n), rng.multinomial(n, np.full(n, 1 / n), size=_REPEATS)])
    measured = []
    for pair in zip(members, ratios, strict=True):
        curve = RocCurve.of(*pair, weights)
        measured.append([curve.area(), *(curve.sensitivity(rate) for rate in RATES)])
    areas, *powers = np.mean(measured, axis=0)
    fewest = int((~members).sum(axis=1).min())
    rates = [
        _at_rate(rate, int(rate * fewest + _ROUNDING), power)
        for rate, power in zip(RATES, powers, strict=True)
    ]
    return Membership(count, trained, n, float(areas[0]), interval(areas[1:]), rates)


def _at_rate(rate: float, allowed: int, powers: Floats) -> AtRate:
    if not allowed:
        return AtRate(rate, allowed, None, None)
    return AtRate(rate, allowed, float(powers[0]), interval(powers[1:]))
