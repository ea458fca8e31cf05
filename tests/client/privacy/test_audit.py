"""An attacker who knows all but one lesion does no better than epsilon says, and sees defects.

The distinguishing game, played many times (Jagielski, Ullman and Oprea, "Auditing differentially
private machine learning", NeurIPS 2020): whole runs with the lesion and without it, each made one
number by the best test there is, and from how often a threshold tells them apart a lower bound on
epsilon that holds with 99 % confidence.
"""

from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

import client.privacy.clipped
from client.methods.private import clipped
from common.config.run import RunConfig
from common.privacy.linear import (
    Centre,
    Objective,
    Units,
    clipped_gradients,
    intercept_of,
    overview,
    plan,
)
from common.privacy.noise import STEP

EPSILON, STEPS, GAMES = 2.0, 4, 3000
CLASSES, DIMENSIONS = 7, 8
CONFIG = RunConfig.read(
    # A larger delta than one would use brings the claim near to what so many games can show.
    {
        "method": "private",
        "epsilon": EPSILON,
        "delta": 5e-3,
        "steps": STEPS,
        "components": DIMENSIONS,
    }
)
RNG = np.random.default_rng(6)
WEIGHTS = RNG.standard_normal((CLASSES, DIMENSIONS + 1))
KNOWN = {
    "mean": np.zeros(DIMENSIONS),
    "scale": np.array(30.0),  # a coordinator may send it: the lesion's gradient is clipped
    "offset": np.zeros(CLASSES),
    "class_weight": np.ones(CLASSES),
    "weights": WEIGHTS,
}
X = RNG.standard_normal((21, DIMENSIONS))
X /= np.linalg.norm(X, axis=1, keepdims=True)
Y = RNG.integers(0, CLASSES, 21)


def _run(lesions: int) -> list[np.ndarray]:
    """Return all that leaves a site with so many lesions in a run."""
    units = Units.apart(X[:lesions], Y[:lesions])
    questions = ["overview", *["gradient"] * STEPS]
    return [clipped(CONFIG, units, q, KNOWN).noisy(1).values.ravel() * STEP for q in questions]


def _statistic() -> Callable[[list[np.ndarray]], float]:
    """Return the logarithm of the likelihood ratio, but for constants, of correct answers."""
    spent = plan(CONFIG)
    assert spent is not None

    def sums(lesions: slice) -> list[np.ndarray]:
        units = Units.apart(X[lesions], Y[lesions])
        centre = Centre(KNOWN["mean"], KNOWN["scale"], intercept_of("softmax"))
        objective = Objective("softmax", KNOWN["offset"], KNOWN["class_weight"])
        gradient = clipped_gradients(units, centre, WEIGHTS, objective, 1.0)
        return [overview(units, CLASSES), *[gradient.ravel()] * STEPS]

    others, one = sums(slice(20)), sums(slice(20, 21))
    scales = [spent.overview.noise * np.sqrt(2), *[spent.training.noise] * STEPS]
    return lambda seen: sum(
        float((s - o) @ e) / scale**2
        for s, o, e, scale in zip(seen, others, one, scales, strict=True)
    )


def _lower_bound() -> float:
    """Return an epsilon that the runs refute, choosing the threshold on half of the games."""
    statistic = _statistic()
    out, within = (
        np.array([statistic(_run(lesions)) for _ in range(GAMES)]) for lesions in (20, 21)
    )

    def bound(threshold: float, half: slice, level: float) -> float:
        caught, wrong = within[half] > threshold, out[half] > threshold
        n = len(caught)
        least = stats.beta.ppf(level, max(caught.sum(), 1e-9), n - caught.sum() + 1)
        most = stats.beta.ppf(1 - level, wrong.sum() + 1, max(n - wrong.sum(), 1e-9))
        return float(np.log(max(least - CONFIG.delta, 1e-9) / most))

    first, second = slice(GAMES // 2), slice(GAMES // 2, None)
    best = max(np.concatenate([out[first], within[first]]), key=lambda t: bound(t, first, 0.005))
    return bound(best, second, 0.005)


@pytest.fixture(autouse=True)
def _seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("client.privacy.draws.randomness", np.random.default_rng(7).bytes)


def test_the_bound_stays_under_the_claim_and_is_no_idle_one():
    assert 0.3 * EPSILON < _lower_bound() < EPSILON


def test_a_run_without_noise_is_caught(monkeypatch):
    real = client.privacy.clipped.noisy
    monkeypatch.setattr(
        "client.privacy.clipped.noisy", lambda v, norm, noise, r: real(v, norm, 0.0, r)
    )
    assert _lower_bound() > EPSILON


def test_a_run_without_a_clip_is_caught(monkeypatch):
    monkeypatch.setattr(
        "client.methods.private.clipped_gradients",
        lambda *arguments: clipped_gradients(*arguments[:-1], 1e9),
    )
    assert _lower_bound() > EPSILON


def test_a_run_with_noise_of_the_wrong_scale_is_caught(monkeypatch):
    real = client.privacy.clipped.noisy
    monkeypatch.setattr(
        "client.privacy.clipped.noisy", lambda v, norm, noise, r: real(v, 0.3, noise, r)
    )
    assert _lower_bound() > EPSILON
