"""The price of privacy is an upper bound, close to that of another library, and adds up."""

import json
import math
import subprocess
import sys
from dataclasses import asdict

import dp_accounting
import pytest
from dp_accounting.pld import PLDAccountant
from hypothesis import given
from hypothesis import strategies as st

from common.errors import ConfigError
from common.privacy.accounting import (
    SampledGaussian,
    epsilon,
    largest_delta,
    noise_for,
    steps_within,
)
from tests.examples import examples

DELTA = 1e-5

steps = st.builds(
    SampledGaussian,
    noise=st.floats(0.5, 20),
    rate=st.one_of(st.floats(0.005, 0.5), st.just(1.0)),
    steps=st.integers(1, 300),
)
histories = st.lists(steps, min_size=1, max_size=2)
few = examples(2)


def pld(history: list[SampledGaussian], delta: float, interval: float = 1e-4) -> float:
    """Ask another library for both directions, added and removed; its bound is one from above."""
    accountant = PLDAccountant(value_discretization_interval=interval)
    for each in history:
        event = dp_accounting.GaussianDpEvent(each.noise)
        if each.rate < 1:
            event = dp_accounting.PoissonSampledDpEvent(each.rate, event)
        accountant.compose(event, each.steps)
    return float(accountant.get_epsilon(delta))


@pytest.mark.parametrize(
    ("parts", "delta"),
    [
        ([(1.0, 0.01, 1000)], 1e-3),
        ([(1.0, 0.01, 1000)], 1e-9),
        ([(3.0, 0.1, 300)], DELTA),
        ([(0.3, 0.001, 1)], DELTA),
        ([(0.5, 0.1, 1000)], DELTA),
        ([(1.0, 0.01, 1)], DELTA),
        ([(2.0, 0.9999, 100)], DELTA),
        ([(100.0, 0.5, 5000)], DELTA),
        ([(10.0, 0.1, 5000)], DELTA),
        ([(4.0, 1.0, 1), (2.0, 0.2, 100), (1.0, 0.01, 500), (4.0, 1.0, 2)], DELTA),
        ([(0.8, 0.01, 3), (5.0, 0.3, 2000), (50.0, 1.0, 7)], 1e-9),
        ([(0.2, 1.0, 1), (1.0, 0.01, 1000)], DELTA),
    ],
)
def test_it_is_at_most_two_percent_above_another_accountant(parts, delta):
    history = [SampledGaussian(*part) for part in parts]
    exact = pld(history, delta)
    assert exact <= epsilon(history, delta) <= 1.02 * exact


def test_a_small_epsilon_is_at_most_two_thousandths_above():
    history = [SampledGaussian(10, 0.001, 5000)]
    exact = pld(history, DELTA, interval=1e-6)  # a wider one is itself 9 % above
    assert exact <= epsilon(history, DELTA) <= exact + 0.002


@pytest.mark.parametrize("noise", [0.3, 1.0, 10.0, 100.0])
@pytest.mark.parametrize("delta", [0.3, DELTA, 1e-9])
def test_without_sampling_it_is_exact(noise, delta):
    # The other library rounds up, by up to 1e-6.
    exact = pld([SampledGaussian(noise, 1)], delta)
    assert epsilon([SampledGaussian(noise, 1)], delta) == pytest.approx(exact, rel=1e-5, abs=1e-6)
    # Four steps at twice the noise, apart or together, are that one.
    four = [SampledGaussian(2 * noise, 1, 3), SampledGaussian(2 * noise, 1)]
    assert epsilon(four, delta) == pytest.approx(epsilon([SampledGaussian(noise, 1)], delta))


@pytest.mark.parametrize(
    ("parts", "delta"),
    [
        ([(0.3, 0.1, 5000)], DELTA),
        ([(0.5, 0.5, 1000)], DELTA),
        ([(1.0, 0.01, 1000)], 1e-12),
    ],
)
def test_where_that_arithmetic_fails_it_is_still_a_bound(parts, delta):
    history = [SampledGaussian(*part) for part in parts]
    exact = pld(history, delta, interval=1e-4 if delta < DELTA else 0.01)
    assert exact <= epsilon(history, delta) <= 1.2 * exact


def test_nothing_costs_nothing():
    assert epsilon([], DELTA) == 0
    assert epsilon([SampledGaussian(100, 0.01)], 0.9) == epsilon([SampledGaussian(9, 1)], 0.9) == 0


@few
@given(history=histories, more=steps)
def test_it_grows_with_every_step(history, more):
    before = epsilon(history, DELTA)
    again = [*history, SampledGaussian(history[-1].noise, history[-1].rate)]
    assert before < epsilon(again, DELTA)
    assert before < epsilon([*history, more], DELTA) == epsilon([more, *history], DELTA)


@few
@given(each=steps.filter(lambda each: each.rate < 0.5), factor=st.floats(1.05, 2))
def test_it_grows_with_the_rate_and_falls_with_the_noise(each, factor):
    here = epsilon([each], DELTA)
    assert here < epsilon([SampledGaussian(each.noise, factor * each.rate, each.steps)], DELTA)
    assert here > epsilon([SampledGaussian(factor * each.noise, each.rate, each.steps)], DELTA)


@examples(2)
@given(target=st.floats(0.5, 10), rate=st.floats(0.01, 0.2), steps=st.integers(1, 100))
def test_the_noise_for_an_epsilon_is_the_least(target, rate, steps):
    noise = noise_for(target, DELTA, rate, steps)
    assert epsilon([SampledGaussian(noise, rate, steps)], DELTA) <= target
    assert epsilon([SampledGaussian(noise - 0.001, rate, steps)], DELTA) > target


@pytest.mark.parametrize("target", [0.01, 1, 8, 1000])
def test_the_noise_of_a_single_sum_is_the_least_too(target):
    noise = noise_for(target, DELTA, 1, 1)
    assert epsilon([SampledGaussian(noise, 1)], DELTA) <= target
    assert epsilon([SampledGaussian(noise - 0.001, 1)], DELTA) > target


@pytest.mark.parametrize(("rate", "history"), [(1, [SampledGaussian(2, 1)]), (0.1, [])])
def test_as_many_steps_fit_as_keep_to_the_epsilon(rate, history):
    most = steps_within(3, DELTA, 4, rate, history)
    assert epsilon([*history, SampledGaussian(4, rate, most)], DELTA) <= 3
    assert epsilon([*history, SampledGaussian(4, rate, most + 1)], DELTA) > 3


def test_what_was_spent_before_is_counted():
    history = [SampledGaussian(2, 1)]
    noise = noise_for(4, DELTA, 1, 10, history)
    assert epsilon([*history, SampledGaussian(noise, 1, 10)], DELTA) <= 4
    assert epsilon([*history, SampledGaussian(noise - 0.001, 1, 10)], DELTA) > 4
    assert noise > noise_for(4, DELTA, 1, 10)


def test_the_steps_may_be_none_or_as_many_as_are_asked_for():
    assert steps_within(1, DELTA, 0.5, 1) == 0
    assert steps_within(1, DELTA, 50, 1, [SampledGaussian(0.5, 1)]) == 0
    assert steps_within(1, DELTA, 50, 1, most=10) == 10


def test_no_noise_mends_what_is_spent():
    history = [SampledGaussian(4.4, 1)]
    with pytest.raises(ConfigError, match=r"of epsilon 0\.8 is spent; no noise is enough"):
        noise_for(0.8, DELTA, 1, 1, history)
    limit = epsilon(history, DELTA)
    with pytest.raises(ConfigError, match="even a noise multiplier of 16384 does not keep 5 steps"):
        noise_for(limit, DELTA, 1, 5, history)


@pytest.mark.parametrize(
    ("units", "delta"), [(1, 1e-5), (7470, 1e-5), (35_111, 1e-5), (10**6, 10**-6.6)]
)
def test_the_largest_delta_is_well_below_one_over_the_units(units, delta):
    assert largest_delta(units) == pytest.approx(delta)


OK = SampledGaussian(1, 0.5)


@pytest.mark.parametrize(
    ("mistake", "reason"),
    [
        (lambda: SampledGaussian(0, 0.5), "the noise multiplier is 0;"),
        (lambda: SampledGaussian(float("nan"), 0.5), "the noise multiplier is nan;"),
        (lambda: SampledGaussian(float("inf"), 0.5), "the noise multiplier is inf;"),
        (lambda: SampledGaussian(1e-9, 1), "the noise multiplier is 1e-09;"),
        (lambda: SampledGaussian(1e308, 1), r"the noise multiplier is 1e\+308;"),
        (lambda: SampledGaussian(1, 1, 10**400), "the number of steps is 10"),
        (lambda: SampledGaussian(1, 0), "the sampling rate is 0;"),
        (lambda: SampledGaussian(1, 1.5), r"the sampling rate is 1\.5;"),
        (lambda: SampledGaussian(1, 1, 0), "the number of steps is 0;"),
        (lambda: SampledGaussian(1, 1, 1.5), r"the number of steps is 1\.5;"),
        (lambda: epsilon([OK], 0), "delta is 0;"),
        (lambda: epsilon([], 1), "delta is 1;"),
        (lambda: epsilon([OK], float("nan")), "delta is nan;"),
        (lambda: noise_for(-1, DELTA, 0.5, 1), "epsilon is -1;"),
        (lambda: noise_for(1, 2, 0.5, 1), "delta is 2;"),
        (lambda: noise_for(1, DELTA, 2, 1), "the sampling rate is 2;"),
        (lambda: noise_for(1, DELTA, 1, 0), "the number of steps is 0;"),
        (lambda: steps_within(float("inf"), DELTA, 1, 1), "epsilon is inf;"),
        (lambda: steps_within(1, DELTA, 0, 1), "the noise multiplier is 0;"),
        (lambda: largest_delta(10**400), "the number of units is 10"),
        (lambda: largest_delta(0), "the number of units is 0;"),
    ],
)
def test_what_is_out_of_range_is_one_line(mistake, reason):
    with pytest.raises(ConfigError, match=reason) as refusal:
        mistake()
    assert "\n" not in str(refusal.value)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("noise", [1e-4, 1e6])
@pytest.mark.parametrize("steps", [1, 10**9])
@pytest.mark.parametrize("delta", [1e-300, 1e-5, 1 - 1e-16])
def test_what_is_in_range_has_an_epsilon(noise, steps, delta):
    assert 0 <= epsilon([SampledGaussian(noise, 1.0, steps)], delta) < math.inf


def test_the_bound_for_little_noise_goes_on_where_the_exact_one_ends():
    most, least = (epsilon([SampledGaussian(1e-4, 1.0, n)], DELTA) for n in (10_100, 9_900))
    assert most == pytest.approx(101 / 99 * least, rel=1e-5)


def test_it_goes_through_json():
    assert SampledGaussian(**json.loads(json.dumps(asdict(OK)))) == OK


def test_a_sum_without_sampling_is_accounted_for_without_torch():
    code = (
        "import sys; from common.privacy.accounting import *;"
        "epsilon([SampledGaussian(1, 1)], 1e-5); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
