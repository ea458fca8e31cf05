"""Models with random weights, as trained ones come from a file."""

from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from common.answers.basis import AnswerBasis
from common.answers.counts import AnswerCounts
from common.arrays import Floats
from common.config.run import RunConfig
from common.data.metadata import width
from common.models.linear import LinearModel
from common.models.network import NetworkModel
from common.networks.fusion import fusion_of
from common.svm.feature_map import FeatureMap, FourierMap
from common.task import HAM10000

M = TypeVar("M", LinearModel, NetworkModel)

N_CLASSES = HAM10000.n_classes
COMPONENTS = 6


def basis() -> AnswerBasis:
    """Return a basis with calibration lesions."""
    rng = np.random.default_rng(1)
    chances = rng.dirichlet(np.full(N_CLASSES, 0.3), size=900)
    labels = (chances.cumsum(axis=1) > rng.random((900, 1))).argmax(axis=1)
    counts = AnswerCounts.measure(HAM10000, labels, chances)
    calibration = rng.uniform(0.5, 1.5, (2, N_CLASSES))
    return AnswerBasis.of(HAM10000, calibration, np.full(N_CLASSES, 1 / N_CLASSES), counts)


def linear(
    n_features: int,
    fourier: FourierMap | None = None,
    unit: float = 0.0,
    clip: float = 0.0,
    power: float = 1.0,
    **settings: Any,
) -> LinearModel:
    """Return a linear model on so many features of images."""
    config = RunConfig.read(settings)
    rng, beside = np.random.default_rng(0), width(config.metadata)
    mean = np.concatenate([rng.normal(0, 0.1, n_features), rng.uniform(0.1, 0.9, beside)])
    matrix = rng.normal(0, 1, (n_features + beside, COMPONENTS))
    if beside:  # numbers of patients have outputs of their own
        matrix = np.pad(matrix, ((0, 0), (0, beside)))
        matrix[n_features:] = 0.1 * np.eye(beside, matrix.shape[1], COMPONENTS)
    powers = np.repeat([1.0, power, 1.0], [3, n_features - 3, beside])
    feature_map = FeatureMap(mean, matrix, fourier, unit, clip, beside, powers)
    last = rng.normal(0, 0.5, (N_CLASSES, feature_map.n_outputs + 1))
    return LinearModel(feature_map, last, basis(), config)


def network(n_features: int, **settings: Any) -> NetworkModel:
    """Return a network with a head on so many features, its backbone as pretrained."""
    config = RunConfig.read({"method": "finetune", **settings})
    shapes: dict[str, tuple[int, ...]] = {
        "head.weight": (N_CLASSES, n_features),
        "head.bias": (N_CLASSES,),
    }
    if fusion := fusion_of(config.fusion, config.metadata):
        shapes |= fusion.shapes(N_CLASSES, n_features)
    rng = np.random.default_rng(0)
    spread = {name: 1.0 if name.startswith("head.") else 0.1 for name in shapes}
    tensors = {n: rng.normal(0, spread[n], s).astype(np.float32) for n, s in shapes.items()}
    return NetworkModel(tensors, basis(), config)


def undecided(model: M, scores: Floats) -> M:
    """Return the model so calibrated that these scores (n, n_classes) make various answers."""
    scale = 2 / scores.std(axis=0)
    calibration = np.stack([scale, -scale * scores.mean(axis=0)])
    return replace(model, basis=replace(model.basis, calibration=calibration))
