"""Gradients of opened layers are clipped image by image, over all weights together."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from common.errors import ConfigError
from common.networks.fusion import Fusion
from common.networks.network import Network, build, open_stage, trunk
from common.privacy.network import CHUNK, Batch, OpenPart, clipped_sum
from common.privacy.noise import ROUNDING
from common.task import HAM10000
from tests.finetuning import BACKBONE, STAGE

CLASSES = len(HAM10000.codes)
RNG = np.random.default_rng(2)
OFFSET, CLASS_WEIGHT = RNG.standard_normal(CLASSES), RNG.random(CLASSES)
Y = RNG.integers(0, CLASSES, 6)
WIDTH = 5


@pytest.fixture(scope="module", params=["", "late", "gate"])
def network(network_file, request) -> Network:
    fusion = Fusion(request.param, WIDTH) if request.param else None
    return build(BACKBONE, network_file, HAM10000.n_classes, fusion)


@pytest.fixture(scope="module")
def about(network) -> np.ndarray:
    return RNG.random((6, WIDTH if network.metadata else 0), dtype=np.float32)


@pytest.fixture(scope="module")
def part(network) -> OpenPart:
    return OpenPart(network, open_stage(network, STAGE), 0.3)


@pytest.fixture(scope="module")
def weights(part) -> np.ndarray:
    """Move them a little: a head of zeros would have no gradient behind it."""
    return part.pretrained + 0.05 * RNG.standard_normal(part.pretrained.shape)


@pytest.fixture(scope="module")
def activations(network) -> np.ndarray:
    images = torch.from_numpy(RNG.standard_normal((6, 3, 32, 32)).astype(np.float32))
    with torch.no_grad():
        return trunk(network, [STAGE])(images)[0].numpy()


def _each(part: OpenPart, weights: np.ndarray, batch: Batch) -> np.ndarray:
    """Differentiate one image at a time, without Opacus."""
    part.load(weights)
    rows = []
    for x, known, label in zip(*batch, strict=True):
        inputs = (torch.from_numpy(each[None]) for each in (x, known))
        logits = part(*inputs) + torch.from_numpy(OFFSET).float()
        loss = functional.cross_entropy(logits, torch.tensor([label]))
        gradients = torch.autograd.grad(loss, part.opened)
        rows.append(torch.cat([g.flatten() for g in gradients]).double().numpy())
    return np.array(rows)


@pytest.mark.parametrize("clip_norm", [0.1, 1e3])
def test_a_sum_is_that_of_gradients_clipped_one_by_one(
    part, weights, activations, about, clip_norm
):
    each = _each(part, weights, Batch(activations, about, Y))
    norms = np.linalg.norm(each, axis=1)
    factors = CLASS_WEIGHT[Y] * np.minimum(1, clip_norm / norms)
    expected = (each * factors[:, None]).sum(axis=0)
    batches = iter([Batch(activations[p], about[p], Y[p]) for p in (slice(4), slice(4, None))])
    got = clipped_sum(part, weights, batches, OFFSET, CLASS_WEIGHT, clip_norm)
    assert (norms > 0.1).all()
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-5 * np.abs(expected).max())


def test_one_image_more_moves_the_others_by_far_less_than_the_noise_counts(
    part, weights, activations, about
):
    """In other batches their gradients round otherwise, which adds to what the image moves."""
    drawn = np.random.default_rng(0).integers(0, len(Y), 200)

    def summed(images: np.ndarray) -> np.ndarray:
        chunks = (images[i : i + CHUNK] for i in range(0, len(images), CHUNK))
        batches = (Batch(activations[c], about[c], Y[c]) for c in chunks)
        return clipped_sum(part, weights, batches, OFFSET, CLASS_WEIGHT, 0.5)

    moved = summed(drawn) - summed(drawn[1:]) - summed(drawn[:1])
    assert np.linalg.norm(moved) <= 0.5 * ROUNDING / 50


def test_an_image_adds_no_more_than_the_clip_and_leaves_no_hook(part, weights, activations, about):
    one = iter([Batch(1e3 * activations[:1], 1e3 * about[:1], Y[:1])])
    even = np.ones(CLASSES)
    assert np.linalg.norm(clipped_sum(part, weights, one, OFFSET, even, 0.5)) <= 0.5 * (1 + 1e-5)
    assert (clipped_sum(part, weights, iter([]), OFFSET, even, 0.5) == 0).all()
    assert not any(module._forward_hooks for module in part.modules())


def test_the_networks_head_scores_features_as_they_are(network, part, weights, activations, about):
    part.load(weights)
    tensors = part.tensors(weights)
    with torch.no_grad():
        known = torch.from_numpy(about)
        expected = part(torch.from_numpy(activations), known)
        network.load(tensors)
        features = open_stage(network, STAGE).tail(torch.from_numpy(activations))
        scored = network.classify(features, known)
        torch.testing.assert_close(scored, expected, rtol=1e-4, atol=1e-5)
    assert tensors.keys() == open_stage(network, STAGE).trainable.keys()


@pytest.mark.parametrize(
    ("layer", "reason"),
    [(nn.BatchNorm2d(3), "BatchNorm"), (nn.ReLU(inplace=True), "in place")],
)
def test_layers_that_break_the_clip_are_refused(network, monkeypatch, layer, reason):
    stage = open_stage(network, STAGE)
    broken = nn.Sequential(layer, stage.tail)
    monkeypatch.setitem(stage.__dict__, "tail", broken)
    with pytest.raises(ConfigError, match=f"cannot be trained privately .*{reason}"):
        OpenPart(network, stage)
