"""The one-run audit of a network: correct code keeps its claim, and broken code is caught."""

import numpy as np
import pytest
import torch
from torch.nn import functional

import client.privacy.clipped
from common.config.run import RunConfig
from common.data.metadata import width
from common.privacy.network import clipped_sum, run_part
from simulations.audit.epsilon_bound import OneRun
from simulations.audit.network_canaries import Activations, audit_network, gradients
from tests.finetuning import changed, quick

EPSILON = 2.0
CANARIES = 300
OWN, SHARED = {"trust": "site"}, {"trust": "distributed", "honest": 2}
COLUMNS = ("age", "sex", "localization")
SETTINGS = {"method": "private_finetune", "epsilon": EPSILON, "steps": 4, "imbalance": "logits"}


@pytest.fixture(autouse=True)
def _seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("client.privacy.draws.randomness", np.random.default_rng(3).bytes)


@pytest.fixture
def config(network_file, tmp_path) -> RunConfig:
    base = quick(tmp_path, network_file)
    return changed(base, tmp_path / "run", **SETTINGS, opens="head")


def _play(config: RunConfig, canaries: int = CANARIES, **changes: object) -> OneRun:
    return audit_network(config.model_copy(update=changes), 2, canaries)


@pytest.mark.parametrize(
    "trust",
    [OWN, SHARED, {**SHARED, "metadata": COLUMNS}],
    ids=["site", "distributed", "with metadata"],
)
def test_the_bound_stays_under_the_claim(config, trust):
    assert _play(config, **trust).bound < EPSILON


def test_so_it_does_with_a_block_opened_where_plain_sums_show_all(config):
    assert _play(config, 60, opens="layer4").bound < EPSILON
    found = _play(config, 60, opens="layer4", epsilon=0.0, steps=2)
    assert found.bound == found.largest > EPSILON


def test_the_bound_is_no_idle_one(config):
    found = _play(config, **SHARED, epsilon=30.0, steps=1)
    assert 2 < found.bound < 30


@pytest.mark.parametrize("trust", [OWN, SHARED], ids=["site", "distributed"])
def test_a_run_without_noise_is_caught(config, monkeypatch, trust):
    real = client.privacy.clipped.noisy
    monkeypatch.setattr(
        "client.privacy.clipped.noisy", lambda v, norm, noise, r: real(v, norm, 0.0, r)
    )
    assert _play(config, **trust).bound > EPSILON


def test_a_run_without_a_clip_is_caught(config, monkeypatch):
    monkeypatch.setattr(
        "client.methods.private_finetune.clipped_sum",
        lambda *arguments: clipped_sum(*arguments[:-1], 1e9),
    )
    assert _play(config).bound > EPSILON


def test_a_run_with_noise_of_the_wrong_scale_is_caught(config, monkeypatch):
    real = client.privacy.clipped.noisy
    monkeypatch.setattr(
        "client.privacy.clipped.noisy", lambda v, norm, noise, r: real(v, norm / 5, noise, r)
    )
    assert _play(config).bound > EPSILON


@pytest.mark.parametrize("fusion", ["late", "gate"])
def test_the_attacker_differentiates_for_himself(config, fusion):
    changes = {"opens": "layer4", "metadata": COLUMNS, "fusion": fusion}
    part = run_part(config.model_copy(update=changes))
    rng = np.random.default_rng(0)
    canaries = Activations.draw(3, (192, 2, 2), width(COLUMNS), 2, 7, rng)
    weights = part.pretrained + 0.05 * rng.standard_normal(part.pretrained.shape)
    offset = rng.standard_normal(7)
    rows = gradients(part, weights, canaries, offset)
    for row, x, about, label in zip(rows, canaries.X, canaries.about, canaries.y, strict=True):
        scores = part(*(torch.from_numpy(each[None]) for each in (x, about)))
        logits = scores + torch.from_numpy(offset).float()
        loss = functional.cross_entropy(logits, torch.tensor([label]))
        each = torch.autograd.grad(loss, part.opened)
        expected = torch.cat([g.flatten() for g in each]).numpy()
        np.testing.assert_allclose(row, expected, rtol=1e-3, atol=1e-5 * np.abs(expected).max())
