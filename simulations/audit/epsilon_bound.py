"""A lower bound on epsilon from one training run: how many guesses about it came true.

Steinke, Nasr and Jagielski, "Privacy auditing with one (1) training run", NeurIPS 2023. Each of m
canaries is in the training data or not, by a fair coin of its own. An auditor who saw the run
guesses the coins of r canaries, those that he is surest of, and v guesses are right. If the
training is (epsilon, delta)-private, then by theorem 5.2::

    P[right >= v] <= P[W >= v] + 2 m delta max_i (P[W >= v - i] - P[W >= v]) / i

with W binomial, r draws with the chance 1 / (1 + exp(-epsilon)), and i from 1 to v. An epsilon
for which that is below 5 % is refuted with a confidence of 95 %.
"""

import math
from dataclasses import dataclass

import numpy as np

from common.arrays import Bools, Floats

LEVEL = 0.05
"""Chance that a bound is above the true epsilon: one minus the confidence."""

SHARES = (0.05, 0.1, 0.25, 1.0)
"""Of the canaries, how many are guessed. Fixed before anything is seen; each gets an equal part of
the level (Bonferroni), so that the best of the bounds holds at the whole of it."""

_LARGEST = 50.0
_PRECISION = 1e-4


@dataclass(frozen=True)
class Guesses:
    """The number of guesses, of right ones, and the epsilon that they refute."""

    made: int
    right: int
    bound: float


@dataclass(frozen=True)
class OneRun:
    """What one training run shows of epsilon.

    Attributes
    ----------
    canaries : how many there were, in the training data or not.
    attack : what the auditor looked at.
    guesses : for each of the shares.
    bound : lower bound on epsilon with 95 % confidence, the best of theirs.
    largest : what ``bound`` would be if all guesses were right: more cannot be seen.
    """

    canaries: int
    attack: str
    guesses: list[Guesses]
    bound: float
    largest: float


def judge(scores: Floats, included: Bools, delta: float, attack: str) -> OneRun:
    """Turn scores of canaries into a bound on epsilon.

    Parameters
    ----------
    scores : (m,) above 0 for a canary that seems to be in the training data, below 0 for one
        that does not; the larger the surer.
    included : (m,) whether it was.
    delta : that of the claim.
    """
    m, level = len(scores), LEVEL / len(SHARES)
    surest = np.argsort(-np.abs(scores), kind="stable")
    right = np.cumsum((scores > 0)[surest] == included[surest])
    guesses, largest = [], 0.0
    for r in sorted({max(1, round(share * m)) for share in SHARES}):
        v = int(right[r - 1])
        guesses.append(Guesses(r, v, lower_bound(m, r, v, delta, level)))
        largest = max(largest, lower_bound(m, r, r, delta, level))
    return OneRun(m, attack, guesses, max(each.bound for each in guesses), largest)


def lower_bound(m: int, r: int, v: int, delta: float, level: float = LEVEL) -> float:
    """Return the largest epsilon, up to 50, that ``v`` right guesses of ``r`` refute.

    Parameters are those of :func:`p_value`; 0 where they refute none.
    """
    if p_value(m, r, v, 0.0, delta) >= level:
        return 0.0
    low, high = 0.0, _LARGEST
    while high - low > _PRECISION:
        middle = (low + high) / 2
        if p_value(m, r, v, middle, delta) < level:
            low = middle
        else:
            high = middle
    return low


def p_value(m: int, r: int, v: int, epsilon: float, delta: float) -> float:
    """Bound the chance of at least ``v`` right guesses under (epsilon, delta)-privacy.

    Parameters
    ----------
    m, r, v : canaries, guesses and right guesses, ``0 <= v <= r <= m``.

    Raises
    ------
    ValueError
        If the numbers are not in this order.

    References
    ----------
    Theorem 5.2 and appendix D of the paper.
    """
    from scipy.stats import binom  # it takes long to import

    if not 0 <= v <= r <= m:
        raise ValueError(f"{v} right of {r} guesses about {m} canaries; expected 0 <= v <= r <= m")
    chance = 1 / (1 + math.exp(-epsilon))
    below = np.cumsum(binom.pmf(np.arange(v - 1, -1, -1), r, chance))
    steepest = float(np.max(below / np.arange(1, v + 1), initial=0.0))
    return min(1.0, float(binom.sf(v - 1, r, chance)) + 2 * m * delta * steepest)
