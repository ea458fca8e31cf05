"""The one-run audit keeps under the claim of correct code, and sees what is broken."""

import numpy as np
import pytest

import client.privacy.clipped
from common.config.run import RunConfig
from common.privacy.accounting import SampledGaussian, epsilon
from common.privacy.linear import Plan, clipped_gradients
from simulations.audit.canaries import audit_moments, audit_sums, draw_canaries
from simulations.audit.epsilon_bound import OneRun

EPSILON = 2.0
SETTINGS = {"method": "private", "epsilon": EPSILON, "steps": 4, "clip_norm": 0.2}
OWN, SHARED = {"trust": "site"}, {"trust": "distributed", "honest": 2}


@pytest.fixture(autouse=True)
def _seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("client.privacy.draws.randomness", np.random.default_rng(3).bytes)


def _play(canaries: int = 600, dimensions: int = 256, **changes: object) -> OneRun:
    return audit_sums(RunConfig.read({**SETTINGS, **changes}), dimensions, 2, canaries)


@pytest.mark.parametrize("trust", [OWN, SHARED], ids=["site", "distributed"])
def test_the_bound_stays_under_the_claim_and_is_no_idle_one(trust):
    assert _play(**trust).bound < EPSILON
    # Guesses that are nearly always right need many canaries to say so.
    found = _play(2000, 512, **trust, epsilon=8.0, steps=1)
    assert 0.2 * 8 < found.bound < 8


def test_moments_keep_their_claim_and_without_their_noise_are_caught(monkeypatch):
    settings = {"head": "lda", "epsilon": 8.0}
    assert 0.2 * 8 < _play(2000, 256, **settings).bound < 8
    real = client.privacy.clipped.noisy
    monkeypatch.setattr(
        "client.privacy.clipped.noisy", lambda v, norm, noise, r: real(v, norm, 0.0, r)
    )
    assert _play(head="lda").bound > EPSILON


@pytest.mark.parametrize("head", ["softmax", "hinge"])
def test_samples_hide_but_the_claim_holds_with_them(monkeypatch, head):
    spent = Plan(SampledGaussian(50.0, 1.0), SampledGaussian(0.5, 0.5, 4))
    for module in ("client.privacy.clipped", "simulations.audit.canaries"):
        monkeypatch.setattr(f"{module}.plan", lambda config: spent)
    claim = epsilon(spent, 1e-5)
    assert 0.1 < _play(rate=0.5, head=head).bound < claim


def test_where_nothing_is_promised_all_is_seen():
    found = _play(epsilon=0)
    assert found.bound == found.largest > 4


@pytest.mark.parametrize("trust", [OWN, SHARED], ids=["site", "distributed"])
def test_a_run_without_noise_is_caught(monkeypatch, trust):
    real = client.privacy.clipped.noisy
    monkeypatch.setattr(
        "client.privacy.clipped.noisy", lambda v, norm, noise, r: real(v, norm, 0.0, r)
    )
    assert _play(**trust).bound > EPSILON


def test_a_run_without_a_clip_is_caught(monkeypatch):
    monkeypatch.setattr(
        "client.methods.private.clipped_gradients",
        lambda *arguments: clipped_gradients(*arguments[:-1], 1e9),
    )
    assert _play().bound > EPSILON


def test_a_run_with_noise_of_the_wrong_scale_is_caught(monkeypatch):
    real = client.privacy.clipped.noisy
    monkeypatch.setattr(
        "client.privacy.clipped.noisy", lambda v, norm, noise, r: real(v, norm / 5, noise, r)
    )
    assert _play().bound > EPSILON


def test_moments_show_every_canary():
    found = audit_moments(64, sites=2, n_classes=7, seed=0, delta=1e-5, m=200)
    assert found.guesses[-1].right == found.guesses[-1].made == 200


def test_canaries_are_records_of_the_largest_norm_with_little_in_common():
    canaries = draw_canaries(40, 16, 3, 7, np.random.default_rng(0))
    np.testing.assert_allclose(np.linalg.norm(canaries.X, axis=1), 1)
    np.testing.assert_allclose(canaries.X[:16] @ canaries.X[:16].T, np.eye(16), atol=1e-12)
    assert len(canaries) == 40
    assert set(canaries.site) == {0, 1, 2}
