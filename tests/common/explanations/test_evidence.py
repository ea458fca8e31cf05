"""Evidence of cells adds up to the scores, whatever the head, and is Grad-CAM on a network."""

import io
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow

from common.data.metadata import beside
from common.errors import ConfigError
from common.explanations.evidence import Contrast, linear_head, log_odds, network_head
from common.features.extract import FeatureSpec
from common.models.linear import average_views, decision_values
from common.networks.network import build
from common.networks.spatial_maps import map_network, pooled
from common.statistics.calibration import probabilities
from common.svm.feature_map import FeatureMap, FourierMap
from common.task import HAM10000
from tests.examples import examples

N_CLASSES = 4
LEVELS = ((3, 5, 5), (4, 2, 3), (6, 1, 1))
N_FEATURES = sum(channels for channels, _, _ in LEVELS)


def _maps(rng: np.random.Generator, views: int) -> list[np.ndarray]:
    """Draw activations, which are at least 0 as a rule."""
    shapes = [(views, *level) for level in LEVELS]
    return [np.maximum(rng.normal(0.5, 1, shape), 0).astype(np.float32) for shape in shapes]


def _linear(
    rng: np.random.Generator, unit: bool, clip: float, width: int = 0, power: float = 1.0
) -> tuple[FeatureMap, np.ndarray]:
    matrix, mean = rng.normal(size=(N_FEATURES + width, 8)), rng.uniform(0, 1, N_FEATURES + width)
    powers = np.repeat([1.0, power, 1.0], [5, N_FEATURES - 5, width])
    feature_map = FeatureMap(mean, matrix, None, unit, clip, powers=powers)
    return feature_map, rng.normal(size=(N_CLASSES, 9))


@examples(150)
@given(
    seed=st.integers(0, 2**32 - 1),
    views=st.integers(1, 8),
    unit=st.booleans(),
    clip=st.sampled_from([0.0, 0.5, 3.0]),
    width=st.integers(0, 3),
    power=st.sampled_from([1.0, 0.5]),
)
def test_the_cells_and_the_intercept_add_up_to_the_decision_values(
    seed, views, unit, clip, width, power
):
    rng = np.random.default_rng(seed)
    feature_map, weights = _linear(rng, unit, clip, width, power)
    maps, numbers = _maps(rng, views), rng.uniform(0, 1, width).astype(np.float32)
    rows = beside(pooled(maps)[None], numbers[None])
    scores = decision_values(average_views(feature_map, rows), weights)[0]
    head = linear_head(feature_map, weights, numbers)
    for label, direction in enumerate(np.eye(N_CLASSES)):
        evidence = head.evidence(maps, Contrast(direction, 0.0))
        assert [each.shape for each in evidence.cells] == [(views, *level[1:]) for level in LEVELS]
        assert width or evidence.rest == weights[label, -1]
        size = sum(np.abs(each).sum() for each in evidence.cells)
        assert evidence.total == pytest.approx(scores[label], abs=1e-6 * (1 + size))


def test_the_contrast_of_two_classes_is_their_log_odds():
    rng = np.random.default_rng(0)
    feature_map, weights = _linear(rng, unit=0.0, clip=0.0)
    maps, calibration = _maps(rng, 4), rng.uniform(0.5, 2, (2, N_CLASSES))
    scores = decision_values(average_views(feature_map, pooled(maps)[None]), weights)
    p = probabilities(scores, calibration)[0]
    evidence = linear_head(feature_map, weights).evidence(maps, log_odds(calibration, 2, 1))
    assert evidence.total == pytest.approx(math.log(p[2] / p[1]), abs=1e-5)


def test_a_place_like_the_mean_of_the_training_views_adds_nothing():
    rng = np.random.default_rng(0)
    feature_map, weights = _linear(rng, unit=0.0, clip=0.0)
    maps = _maps(rng, 2)
    maps[0][:, :, 1, 3] = feature_map.mean[: LEVELS[0][0]]
    evidence = linear_head(feature_map, weights).evidence(maps, Contrast(np.eye(4)[0], 0.0))
    silent = np.abs(evidence.cells[0]).max(axis=0) < 1e-7
    assert np.argwhere(silent).tolist() == [[1, 3]]


def test_what_has_no_map_says_why():
    rbf = FeatureMap(np.zeros(3), np.eye(3), FourierMap(4, 1.0, 0))
    with pytest.raises(ConfigError, match="no evidence map: the RBF kernel"):
        linear_head(rbf, np.zeros((N_CLASSES, 5)))
    head = network_head(np.ones((N_CLASSES, 6), np.float32), np.zeros(N_CLASSES, np.float32))
    with pytest.raises(ConfigError, match="does more than pool its last map"):
        head.evidence([np.ones((2, 6, 1, 1), np.float32)], Contrast(np.eye(4)[0], 0.0))


def test_on_a_networks_last_activation_it_is_captums_grad_cam():
    from captum.attr import LayerGradCam

    spec = FeatureSpec(size=96, levels=0, predictions=3)
    network = build(spec.backbone, None, HAM10000.n_classes)
    rng = np.random.default_rng(0)
    weights = rng.normal(size=tuple(network.head.weight.shape)).astype(np.float32)
    bias = rng.normal(size=len(weights)).astype(np.float32)
    network.load({"head.weight": weights, "head.bias": bias})
    (last,) = map_network(spec, [], {}).maps(_file())
    for label, direction in enumerate(np.eye(len(weights))):
        evidence = network_head(weights, bias).evidence([last], Contrast(direction, 0.0))
        for layer, same in ((network.backbone.bn2, True), (network.backbone.conv_head, False)):
            cam = LayerGradCam(network, layer)
            theirs = cam.attribute(_views(spec), label, relu_attributions=False)[:, 0].detach()
            largest = float(theirs.abs().max())
            # Ours is averaged over the views; theirs is of each.
            equal = np.allclose(3 * evidence.cells[0], theirs, atol=1e-4 * largest)
            assert equal == same


def _file() -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    file = io.BytesIO()
    Pillow.fromarray(pixels).resize((140, 105)).save(file, "PNG")
    return file.getvalue()


def _views(spec: FeatureSpec) -> torch.Tensor:
    from common.features.augment import normalise, prediction_view
    from common.features.backbone import input_statistics

    image, statistics = spec.transform.image(_file()), input_statistics(spec.backbone)
    views = [prediction_view(image, number, spec.size) for number in range(spec.predictions)]
    return torch.from_numpy(np.stack([normalise(view, *statistics) for view in views]))
