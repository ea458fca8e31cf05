"""Released noise has the distribution that the accounting assumes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from common.privacy.noise import STEP, discrete_gaussian, noisy


@pytest.mark.parametrize("scale", [0.4, 1.0, 3.7, 40.0])
def test_integers_are_as_frequent_as_the_discrete_gaussian_makes_them(scale):
    drawn = discrete_gaussian(scale, 40_000, np.random.default_rng(1).bytes)
    edge = int(np.ceil(3 * scale))
    values = np.arange(-40 * edge, 40 * edge + 1)
    chances = np.exp(-(values**2) / (2 * scale**2))
    chances /= chances.sum()
    inside = np.abs(values) <= edge
    seen = [*((drawn == v).sum() for v in values[inside]), (np.abs(drawn) > edge).sum()]
    expected = 40_000 * np.append(chances[inside], chances[~inside].sum())
    assert stats.chisquare(seen, expected).pvalue > 1e-3


def test_a_large_scale_gives_the_normal_distribution():
    drawn = discrete_gaussian(3e8, 20_000, np.random.default_rng(2).bytes)
    assert stats.kstest(drawn / 3e8, "norm").pvalue > 1e-3


def test_the_operating_system_draws_anew_each_time():
    assert (discrete_gaussian(1e6, 50) != discrete_gaussian(1e6, 50)).any()


@pytest.mark.parametrize("scale", [0.0, -1.0, 2e12, float("nan")])
def test_a_scale_that_cannot_be_drawn_is_refused(scale):
    with pytest.raises(ValueError, match="scale is"):
        discrete_gaussian(scale, 3)


@given(values=arrays(np.float64, (2, 3), elements=st.floats(-1e6, 1e6)))
def test_without_noise_values_are_rounded_to_the_ring(values):
    rounded = noisy(values, 1.0, 0.0, lambda count: bytes(count))
    assert rounded.dtype == np.int64
    assert np.abs(rounded * STEP - values).max() <= STEP / 2


def test_noise_is_in_proportion_to_the_sensitivity():
    drawn = noisy(np.zeros(20_000), 3.0, 0.5, np.random.default_rng(3).bytes) * STEP
    assert stats.kstest(drawn / 1.5, "norm").pvalue > 1e-3
