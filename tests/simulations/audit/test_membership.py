"""LiRA finds what a classifier remembers, and nothing where it never saw the lesions."""

import numpy as np
import pytest
from sklearn.metrics import roc_curve

from simulations.audit.membership import Fit, attack, halves, log_odds, measure
from simulations.evaluation.measures import RocCurve

N, CLASSES = 300, 7
RNG = np.random.default_rng(0)
Y = RNG.integers(0, CLASSES, N)
HARDNESS = RNG.standard_normal((N, 1)) * np.eye(CLASSES)[Y]
"""What a lesion's score is without training: unlike its loss, it tells nothing of membership."""


def _remembering(strength: float) -> Fit:
    rng = np.random.default_rng(1)

    def fit(members: np.ndarray) -> np.ndarray:
        own = np.eye(CLASSES)[Y] * members[:, None]
        return 3 * HARDNESS + strength * own + 0.5 * rng.standard_normal((N, CLASSES))

    return fit


def test_a_classifier_that_remembers_is_found():
    found = attack(_remembering(5.0), Y, "", seed=0, shadows=16)
    assert found.auc > 0.98
    assert found.interval[0] <= found.auc <= found.interval[1]
    assert found.rates[1].found > 0.5


def test_a_classifier_that_never_saw_them_is_not():
    found = attack(_remembering(0.0), Y, "", seed=0, shadows=16)
    assert found.interval[0] - 0.02 < 0.5 < found.interval[1] + 0.02
    assert found.rates[1].found < 0.04


def test_a_rate_below_one_lesion_is_not_measured():
    thousandth, hundredth = attack(_remembering(5.0), Y, "", seed=0, shadows=16).rates
    assert (thousandth.allowed, thousandth.found, thousandth.interval) == (0, None, None)
    assert hundredth.allowed == 1
    assert hundredth.interval[0] <= hundredth.found <= hundredth.interval[1]


def test_each_lesion_is_in_half_of_the_classifiers_and_about_half_are_in_each():
    members = halves(16, N, np.random.default_rng(0))
    assert (members.sum(axis=0) == 8).all()
    assert abs(members.mean(axis=1) - 0.5).max() < 0.15


def test_log_odds_are_those_of_the_softmax():
    scores = RNG.standard_normal((N, CLASSES))
    chances = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    p = chances[np.arange(N), Y]
    np.testing.assert_allclose(log_odds(scores, Y), np.log(p / (1 - p)))
    assert np.isfinite(log_odds(1000 * scores, Y)).all()


@pytest.mark.parametrize("decimals", [0, 1, 8])  # with many ties, some, none
@pytest.mark.parametrize("rate", [0.01, 0.05, 0.5])
def test_true_positives_are_scikit_learns(decimals, rate):
    member = RNG.random(N) < 0.5
    scores = np.round(member + RNG.standard_normal(N), decimals)
    weights = np.vstack([np.ones(N), RNG.integers(0, 3, (5, N))])
    got = RocCurve.of(member, scores, weights).sensitivity(rate)
    for value, weight in zip(got, weights, strict=True):
        wrong, right, _ = roc_curve(member, scores, sample_weight=weight, drop_intermediate=False)
        assert value == pytest.approx(right[wrong <= rate + 1e-9].max())


def test_the_measure_of_a_perfect_attack_is_1():
    members = halves(8, N, np.random.default_rng(0))
    found = measure(members, members.astype(float), "", 0)
    assert (found.auc, found.interval, found.rates[1].found) == (1.0, (1.0, 1.0), 1.0)
