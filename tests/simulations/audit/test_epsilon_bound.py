"""The bound on epsilon from guesses: against another formula, and mechanisms of known epsilon."""

import math

import numpy as np
import pytest
from scipy import stats

from simulations.audit.epsilon_bound import LEVEL, judge, lower_bound, p_value


def test_the_bound_is_the_papers():
    assert lower_bound(1000, 100, 75, 1e-4) == pytest.approx(0.673, abs=5e-4)  # its appendix D


@pytest.mark.parametrize(("r", "v"), [(50, 25), (50, 40), (200, 120), (200, 199), (40, 40)])
def test_without_delta_it_is_that_of_the_share_of_right_guesses(r, v):
    least = stats.beta.ppf(LEVEL, v, r - v + 1)  # Clopper and Pearson 1934
    expected = max(0.0, math.log(least / (1 - least)))
    assert lower_bound(1000, r, v, 0.0) == pytest.approx(expected, abs=2e-4)


@pytest.mark.parametrize("delta", [0.0, 1e-2])
def test_randomised_response_is_seldom_refuted_and_nearly_always_almost(delta):
    """With the chance delta all coins are shown as they are; else each lies by its own chance."""
    rng, epsilon, m, runs = np.random.default_rng(0), 1.0, 1000, 100
    coins = rng.random((runs, m)) < 0.5
    lies = rng.random((runs, m)) < 1 / (1 + math.exp(epsilon))
    lies[rng.random(runs) < delta] = False
    bounds = [
        judge(np.where(shown, 1.0, -1.0), coin, delta / m, "").bound
        for coin, shown in zip(coins, coins ^ lies, strict=True)
    ]
    assert np.mean(np.array(bounds) > epsilon) < 2 * LEVEL
    assert np.median(bounds) > 0.6 * epsilon


def test_guesses_by_chance_refute_nothing_and_delta_costs():
    rng = np.random.default_rng(1)
    found = judge(rng.standard_normal(1000), rng.random(1000) < 0.5, 1e-5, "")
    assert found.bound < 0.1
    assert [each.made for each in found.guesses] == [50, 100, 250, 1000]
    bounds = [lower_bound(1000, 100, 95, delta) for delta in (0.0, 1e-5, 1e-4, 1e-3)]
    assert bounds == sorted(bounds, reverse=True)
    assert bounds[0] > bounds[-1]


def test_the_surest_are_guessed_whichever_way():
    scores, included = np.array([9.0, -8.0, 0.1, -0.2]), np.array([True, False, False, True])
    guesses = judge(np.tile(scores, 25), np.tile(included, 25), 0.0, "").guesses
    assert [(each.made, each.right) for each in guesses] == [(5, 5), (10, 10), (25, 25), (100, 50)]


def test_more_right_than_made_is_an_error():
    with pytest.raises(ValueError, match="6 right of 5"):
        p_value(10, 5, 6, 1.0, 0.0)
