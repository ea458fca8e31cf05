"""The game of the one-run audit: canaries in a training run, and guesses which were there.

The training data are canaries alone: differential privacy holds for all data, and other records
could only hide the canaries. They are records of the largest norm, nearly orthogonal, with random
labels, so that no classifier learns to do without them.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np

from common.arrays import Floats
from common.config.run import RunConfig
from common.privacy.lda import shortened, unpacked
from common.privacy.linear import (
    CLASS_SUMS,
    MOMENTS_NORM,
    OVERVIEW_NORM,
    Centre,
    Objective,
    clipped_pulls,
    intercept_of,
    plan,
)
from common.statistics.moments import Moments
from simulations.audit.epsilon_bound import OneRun, judge
from simulations.audit.recorded_training import AllSites, Observation, rehearse

CANARIES = 2000
"""How many there are, where records have 500 dimensions or more; else four for each, for of more
canaries the sums cannot tell who is in."""

_LEAST_NOISE = 1e-3
"""Of the norm, what the attacker reckons with where there is none: his arithmetic needs some."""

_SHARES = np.logspace(-3, 9, 49)
"""Ratios, from which the attacker chooses, of a canary's variance to the noise's."""

_TINY = 1e-12


def draw_canaries(
    count: int, dimensions: int, sites: int, n_classes: int, rng: np.random.Generator
) -> AllSites:
    """Draw records of norm 1 at random sites, orthogonal as far as the dimensions allow."""
    blocks = -(-count // dimensions)
    bases = [np.linalg.qr(rng.standard_normal((dimensions, dimensions)))[0] for _ in range(blocks)]
    y, site = rng.integers(0, n_classes, count), rng.integers(0, sites, count)
    return AllSites(np.concatenate(bases)[:count], y, site, sites)


def audit_sums(config: RunConfig, dimensions: int, sites: int, m: int | None = None) -> OneRun:
    """Play the game with a run of method private.

    Parameters
    ----------
    dimensions : number of dimensions of the records.
    m : number of canaries; None for as many as suit the dimensions.
    """
    m = min(CANARIES, 4 * dimensions) if m is None else m
    rng = np.random.default_rng([config.seed, 1])
    canaries = draw_canaries(m, dimensions, sites, config.task.n_classes, rng)
    included = rng.random(m) < 0.5
    _, observed = rehearse(config, canaries.select(included))
    scores = np.zeros(m)
    channel = canaries.site if config.trust == "site" else np.zeros(m, dtype=np.int64)
    for number in range(len(observed[0].sums)):
        own = channel == number
        sums = [(each, each.sums[number]) for each in observed]
        scores[own] = _scores(config, canaries.select(own), sums)
    return judge(scores, included, config.delta, "all sums of the run")


def audit_moments(
    dimensions: int, sites: int, n_classes: int, seed: int, delta: float, m: int | None = None
) -> OneRun:
    """Play the game with the moments that sites send, without noise, for an SVM."""
    m = min(CANARIES, 4 * dimensions) if m is None else m
    rng = np.random.default_rng([seed, 1])
    canaries = draw_canaries(m, dimensions, sites, n_classes, rng)
    included = rng.random(m) < 0.5
    scores = np.zeros(m)
    for number in range(sites):
        own = canaries.site == number
        X, y = canaries.X[own & included], canaries.y[own & included]
        sent = Moments.measure(X, y, np.ones(len(y)), n_classes)
        mine, class_sum = canaries.select(own), sent.class_sum
        gram = np.equal.outer(mine.y, mine.y) * (mine.X @ mine.X.T)
        matched = np.einsum("ij,ij->i", class_sum[mine.y], mine.X)
        scores[own] = Evidence(gram, matched, float((class_sum**2).sum()), class_sum.size).scores()
    return judge(scores, included, delta, "the moments, which are sent without noise")


def _scores(
    config: RunConfig, canaries: AllSites, sums: list[tuple[Observation, Floats]]
) -> Floats:
    """Score canaries (m,) by all that was seen: above 0 for those that seem to be in.

    The sums are linear in who is in: each adds its own, clipped, and then comes the noise.
    """
    evidence = Evidence.none(len(canaries))
    for observed, total in sums:
        new = _evidence(config, canaries, observed, total)
        evidence = evidence.plus(new, deviation(config, observed.question, canaries.sites))
    return evidence.scores()


def _evidence(
    config: RunConfig, canaries: AllSites, observed: Observation, total: Floats
) -> "Evidence":
    """Weigh one sum; in a step that samples, a canary is expected with its rate."""
    known = observed.sent
    if observed.question == "overview":
        n_classes = config.task.n_classes
        counts, features = total[:n_classes], total[n_classes:]
        gram = np.equal.outer(canaries.y, canaries.y) + canaries.X @ canaries.X.T
        matched, rate = counts[canaries.y] + canaries.X @ features, 1.0
    elif observed.question == "moments":
        X = shortened(canaries.X, Centre(known["mean"], known["scale"]))
        class_sums, second = unpacked(total, config.task.n_classes)
        along, weight = X @ X.T, CLASS_SUMS**2
        gram, rate = weight * np.equal.outer(canaries.y, canaries.y) * along + along**2, 1.0
        matched = weight * np.einsum("ij,ij->i", class_sums[canaries.y], X)
        matched += np.einsum("ij,ij->i", X @ second, X)
    else:
        centre = Centre(known["mean"], known["scale"], intercept_of(config.head))
        X1 = centre.apply(canaries.X)
        objective = Objective(config.head, known["offset"], known["class_weight"])
        pulls = clipped_pulls(X1, canaries.y, known["weights"], objective, config.clip_norm)
        gram, rate = (pulls @ pulls.T) * (X1 @ X1.T), config.rate
        matched = np.einsum("ij,ij->i", pulls @ total, X1)
    return Evidence(rate**2 * gram, rate * matched, float((total**2).sum()), total.size)


@dataclass(frozen=True)
class Evidence:
    """What was seen of m canaries, as sums of what those that are in add, and noise.

    Attributes
    ----------
    gram : (m, m) products of what canaries add with each other.
    matched : (m,) their products with what was seen.
    energy : square of what was seen.
    size : how many numbers were seen.
    """

    gram: Floats
    matched: Floats
    energy: float
    size: int

    @classmethod
    def none(cls, m: int) -> Self:
        """Return what is seen before a run."""
        return cls(np.zeros((m, m)), np.zeros(m), 0.0, 0)

    def plus(self, other: "Evidence", deviation: float) -> "Evidence":
        """Add what was seen under noise of a standard ``deviation``."""
        variance = deviation**2
        return Evidence(
            self.gram + other.gram / variance,
            self.matched + other.matched / variance,
            self.energy + other.energy / variance,
            self.size + other.size,
        )

    def scores(self) -> Floats:
        """Return linear estimates (m,) of who is in, less those of a canary that is half in.

        The attack does not trust the claim. It estimates by least squares how much the canaries add
        in all, and by the likelihood of all that was seen what they add over the noise (empirical
        Bayes; Bishop, Pattern Recognition and Machine Learning, 2006, section 3.5). So it detects a
        missing clip or missing noise.
        """
        toward = self.gram.sum(axis=1)
        half = float(self.matched.sum() / max(toward.sum(), _TINY))
        matched = self.matched - half * toward
        energy = self.energy - 2 * half * self.matched.sum() + half**2 * toward.sum()
        values, vectors = np.linalg.eigh(self.gram)
        values, along = np.maximum(values, 0.0), matched @ vectors

        def likelihood(share: float) -> float:
            explained = share * along**2 / (1 + share * values)
            rest = max(energy - explained.sum(), _TINY * self.energy, _TINY)
            return float(-self.size * np.log(rest) - np.log1p(share * values).sum())

        share = max(_SHARES, key=likelihood)
        return np.asarray(vectors @ (along / (1 + share * values)))


def deviation(config: RunConfig, question: str, sites: int) -> float:
    """Return the standard deviation of the noise that the claim says was added."""
    spent, overview = plan(config), question == "overview"
    norm = {"overview": OVERVIEW_NORM, "moments": MOMENTS_NORM}.get(question, config.clip_norm)
    if spent is None:
        return norm * _LEAST_NOISE
    noise = (spent.overview if overview else spent.training).noise
    if config.trust == "distributed":
        noise *= np.sqrt(sites / config.honest)
    return float(norm * noise)
