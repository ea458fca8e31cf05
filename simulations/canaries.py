"""The game of the one-run audit: canaries in a training run, and who sees that they were there.

The training data are canaries and nothing else: differential privacy speaks of all data, and what
else is there could only hide them. They are records of the largest norm, in directions that have
little in common, with labels by chance, so that no classifier learns to do without them.
"""

import numpy as np
from numpy.typing import NDArray

from common.config import RunConfig
from common.dataset import DIAGNOSES
from common.moments import Moments
from common.private import OVERVIEW_NORM, Centre, clipped_pulls, plan
from simulations.one_run import OneRun, judge
from simulations.rehearsal import Seen, Units, rehearse

Floats = NDArray[np.float64]

CANARIES = 2000

_LEAST_NOISE = 1e-3
"""Of the norm, what the attacker reckons with where there is none: his arithmetic needs some."""


def draw_canaries(count: int, dimensions: int, sites: int, rng: np.random.Generator) -> Units:
    """Draw records of norm 1, orthogonal as far as the dimensions go, at sites by chance."""
    blocks = -(-count // dimensions)
    bases = [np.linalg.qr(rng.standard_normal((dimensions, dimensions)))[0] for _ in range(blocks)]
    y, site = rng.integers(0, len(DIAGNOSES), count), rng.integers(0, sites, count)
    return Units(np.concatenate(bases)[:count], y, site, sites)


def audit_sums(config: RunConfig, dimensions: int, sites: int, m: int = CANARIES) -> OneRun:
    """Play the game with a run of method private.

    Parameters
    ----------
    dimensions : of the records.
    m : number of canaries.
    """
    rng = np.random.default_rng([config.seed, 1])
    canaries, included = draw_canaries(m, dimensions, sites, rng), rng.random(m) < 0.5
    _, seen = rehearse(config, canaries.select(included))
    scores = np.zeros(m)
    channel = canaries.site if config.trust == "site" else np.zeros(m, dtype=np.int64)
    for number in range(len(seen[0].sums)):
        own = channel == number
        sums = [(each, each.sums[number]) for each in seen]
        scores[own] = _scores(config, canaries.select(own), sums)
    return judge(scores, included, config.delta, "all sums of the run")


def audit_moments(
    dimensions: int, sites: int, seed: int, delta: float, m: int = CANARIES
) -> OneRun:
    """Play the game with the moments that sites send, without noise, for an SVM."""
    rng = np.random.default_rng([seed, 1])
    canaries, included = draw_canaries(m, dimensions, sites, rng), rng.random(m) < 0.5
    scores = np.zeros(m)
    for number in range(sites):
        own = canaries.site == number
        X, y = canaries.X[own & included], canaries.y[own & included]
        sent = Moments.measure(X, y, np.ones(len(y)), len(DIAGNOSES))
        mine = canaries.select(own)
        gram = np.equal.outer(mine.y, mine.y) * (mine.X @ mine.X.T)
        matched = np.einsum("ij,ij->i", sent.class_sum[mine.y], mine.X)
        scores[own] = _posterior(gram / _LEAST_NOISE**2, matched / _LEAST_NOISE**2)
    return judge(scores, included, delta, "the moments, which are sent without noise")


def _scores(config: RunConfig, canaries: Units, sums: list[tuple[Seen, Floats]]) -> Floats:
    """Weigh all that was seen of canaries (m,): above 0 for those that seem to be in.

    The sums are linear in who is in: each adds its own, clipped, and then comes the noise. In a
    step that samples, a canary is expected with its rate.
    """
    m = len(canaries)
    gram, matched = np.zeros((m, m)), np.zeros(m)
    for seen, total in sums:
        known, step_gram, step_matched = seen.sent, np.zeros((m, m)), np.zeros(m)
        if seen.question == "overview":
            counts, features = total[: len(DIAGNOSES)], total[len(DIAGNOSES) :]
            step_gram = np.equal.outer(canaries.y, canaries.y) + canaries.X @ canaries.X.T
            step_matched = counts[canaries.y] + canaries.X @ features
            rate = 1.0
        else:
            X1 = Centre(known["mean"], known["scale"]).apply(canaries.X)
            pulls = clipped_pulls(
                X1, canaries.y, known["weights"], known["offset"], config.loss, config.clip_norm
            )
            step_gram = (pulls @ pulls.T) * (X1 @ X1.T)
            step_matched = np.einsum("ik,kj,ij->i", pulls, total, X1, optimize=True)
            rate = config.rate
        variance = _deviation(config, seen.question, canaries.sites) ** 2
        gram += rate**2 * step_gram / variance
        matched += rate * step_matched / variance
    return _posterior(gram, matched)


def _posterior(gram: Floats, matched: Floats) -> Floats:
    """Return the linear estimate of least error of who is in (m,), less one half.

    Parameters
    ----------
    gram, matched : (m, m) and (m,) products of the canaries' contributions with each other and
        with what was seen, over the variance of the noise; the coins' own variance is 1/4.
    """
    centred = matched - gram.sum(axis=1) / 2
    return np.asarray(np.linalg.solve(gram + 4 * np.eye(len(gram)), centred))


def _deviation(config: RunConfig, question: str, sites: int) -> float:
    """Return the standard deviation of what the claim says is added to what is seen."""
    spent, overview = plan(config), question == "overview"
    norm = OVERVIEW_NORM if overview else config.clip_norm
    if spent is None:
        return norm * _LEAST_NOISE
    noise = (spent.overview if overview else spent.gradients).noise
    if config.trust == "distributed":
        noise *= np.sqrt(sites / config.honest)
    return float(norm * noise)
