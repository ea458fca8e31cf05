"""Gradients of opened layers are clipped image by image, over all weights together."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from common.errors import ConfigError
from common.networks.network import Network, build, open_stage, trunk
from common.privacy.network import OpenPart, clipped_sum
from common.task import HAM10000
from tests.finetuning import BACKBONE, STAGE

CLASSES = len(HAM10000.codes)
RNG = np.random.default_rng(2)
OFFSET, CLASS_WEIGHT = RNG.standard_normal(CLASSES), RNG.random(CLASSES)
Y = RNG.integers(0, CLASSES, 6)


@pytest.fixture(scope="module")
def network(network_file) -> Network:
    return build(BACKBONE, network_file, HAM10000.n_classes)


@pytest.fixture(scope="module")
def part(network) -> OpenPart:
    return OpenPart(network, open_stage(network, STAGE))


@pytest.fixture(scope="module")
def weights(part) -> np.ndarray:
    """Move them a little: a head of zeros would have no gradient behind it."""
    return part.pretrained + 0.05 * RNG.standard_normal(part.pretrained.shape)


@pytest.fixture(scope="module")
def activations(network) -> np.ndarray:
    images = torch.from_numpy(RNG.standard_normal((6, 3, 32, 32)).astype(np.float32))
    with torch.no_grad():
        return trunk(network, [STAGE])(images)[0].numpy()


def _each(part: OpenPart, weights: np.ndarray, X: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Differentiate one image at a time, without Opacus."""
    part.load(weights)
    rows = []
    for x, label in zip(X, y, strict=True):
        logits = part(torch.from_numpy(x[None])) + torch.from_numpy(OFFSET).float()
        loss = functional.cross_entropy(logits, torch.tensor([label]))
        gradients = torch.autograd.grad(loss, part.opened)
        rows.append(torch.cat([g.flatten() for g in gradients]).double().numpy())
    return np.array(rows)


@pytest.mark.parametrize("clip_norm", [0.1, 1e3])
def test_a_sum_is_that_of_gradients_clipped_one_by_one(part, weights, activations, clip_norm):
    each = _each(part, weights, activations, Y)
    norms = np.linalg.norm(each, axis=1)
    factors = CLASS_WEIGHT[Y] * np.minimum(1, clip_norm / norms)
    expected = (each * factors[:, None]).sum(axis=0)
    batches = iter([(activations[:4], Y[:4]), (activations[4:], Y[4:])])
    got = clipped_sum(part, weights, batches, OFFSET, CLASS_WEIGHT, clip_norm)
    assert (norms > 0.1).all()
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-5 * np.abs(expected).max())


def test_an_image_adds_no_more_than_the_clip_and_leaves_no_hook(part, weights, activations):
    one = iter([(1e3 * activations[:1], Y[:1])])
    even = np.ones(CLASSES)
    assert np.linalg.norm(clipped_sum(part, weights, one, OFFSET, even, 0.5)) <= 0.5 * (1 + 1e-5)
    assert (clipped_sum(part, weights, iter([]), OFFSET, even, 0.5) == 0).all()
    assert not any(module._forward_hooks for module in part.modules())


def test_the_networks_head_scores_features_as_they_are(network, part, weights, activations):
    part.load(weights)
    tensors = part.tensors(weights)
    with torch.no_grad():
        expected = part(torch.from_numpy(activations))
        network.load(tensors)
        features = open_stage(network, STAGE).tail(torch.from_numpy(activations))
        torch.testing.assert_close(network.head(features), expected, rtol=1e-4, atol=1e-5)
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
