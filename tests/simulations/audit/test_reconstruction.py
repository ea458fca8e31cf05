"""A lone lesion is read from what is sent without noise, and hidden by a run's noise."""

import numpy as np
import pytest

from common.config.run import RunConfig
from common.svm.feature_map import unit_rows
from simulations.audit.reconstruction import from_moments, from_noisy_sums
from simulations.audit.recorded_training import AllSites

DIMENSIONS, SITES = 256, 2
RNG = np.random.default_rng(0)
LESIONS = AllSites(
    unit_rows(RNG.standard_normal((60, DIMENSIONS)) + 0.5),
    RNG.integers(0, 7, 60),
    RNG.integers(0, SITES, 60),
    SITES,
)
SETTINGS = {"method": "private", "steps": 5}


@pytest.fixture(autouse=True)
def _seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("client.privacy.draws.randomness", np.random.default_rng(3).bytes)


@pytest.mark.parametrize(
    ("head", "rate"), [("softmax", 1.0), ("hinge", 1.0), ("hinge", 0.3), ("lda", 1.0)]
)
def test_without_noise_a_lesion_is_what_is_sent_of_it(head, rate):
    config = RunConfig.read({**SETTINGS, "head": head, "rate": rate})
    (found,) = from_noisy_sums(config, LESIONS)
    assert found.lesions == 60
    # Exact but for the ring's step.
    assert found.median > 1 - 1e-8
    assert abs(found.chance) < 0.05


@pytest.mark.parametrize("trust", [{"trust": "site"}, {"trust": "distributed", "honest": 2}])
def test_a_runs_noise_hides_it_and_without_it_it_is_found(trust):
    config = RunConfig.read({**SETTINGS, **trust, "epsilon": 1})
    one, every, plain = from_noisy_sums(config, LESIONS)
    for noisy in (one, every):
        assert abs(noisy.median) < 0.05
        assert noisy.high < noisy.high_chance + 0.1
    assert plain.median > 1 - 1e-8


def test_noise_hides_a_lesion_in_moments():
    config = RunConfig.read({**SETTINGS, "head": "lda", "epsilon": 1})
    noisy, plain = from_noisy_sums(config, LESIONS)
    assert abs(noisy.median) < 0.1
    assert plain.median > 1 - 1e-8


def test_noise_that_promises_little_hides_little():
    config = RunConfig.read({**SETTINGS, "epsilon": 2000})
    one, every, _ = from_noisy_sums(config, LESIONS)
    assert every.median > one.median > 0.5


def test_moments_are_the_only_lesion_of_its_diagnosis():
    assert from_moments(LESIONS, seed=0).median == pytest.approx(1)
