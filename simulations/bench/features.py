"""How fast frozen features are computed, next to plain PyTorch on the same images."""

import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from common.arrays import Floats32
from common.data.dataset import Dataset
from common.features.augment import normalise, prediction_view
from common.features.backbone import (
    PooledFeatures,
    input_statistics,
    load_backbone,
    load_pretrained,
)
from common.features.extract import FeatureSpec
from common.features.inference_engine import Engine, one_thread_per_core, onnx_engine
from simulations.bench.measurement import timed

BATCH = 32
"""Views a batch in PyTorch; the two take turns after each."""


@dataclass(frozen=True)
class FeatureBench:
    """Both ways' speed, without decoding, and how far their features are apart.

    Attributes
    ----------
    engine, eager : views a second of the extraction engine, and of the network as timm builds it,
        run by PyTorch in channels_last with batches of 32.
    difference : largest ``|engine - eager| / |eager|`` of a feature vector, by the Euclidean norm.
    """

    engine: float
    eager: float
    difference: float

    @property
    def ratio(self) -> float:
        """How many times faster the engine is."""
        return self.engine / self.eager


def bench_features(dataset: Dataset, images: int) -> FeatureBench:
    """Measure both on the first ``images`` images, rounded down to batches of 32, at least one.

    They take turns, batch by batch, and the fastest batch of each counts: other load on the
    machine slows threads that wait for each other, as PyTorch's do, more than those that do not.
    """
    spec = FeatureSpec()
    batches = [_views(dataset, start, spec) for start in range(0, images - BATCH + 1, BATCH)]
    with tempfile.TemporaryDirectory() as folder, one_thread_per_core() as pool:
        engine = onnx_engine(lambda: _folded(spec), spec.size, Path(folder) / "network.onnx")
        eager = _eager(spec)
        runs = (lambda views: np.stack(list(pool.map(engine, views)))), eager
        for run in runs:  # not timed: the first run allocates
            run(batches[0])
        turns = [[timed(partial(run, views)) for run in runs] for views in batches]
    seconds = np.array([[each for _, each in pair] for pair in turns]).min(axis=0)
    differences = [_relative_difference(ours, theirs) for (ours, _), (theirs, _) in turns]
    engine_rate, eager_rate = (BATCH / seconds).tolist()
    return FeatureBench(engine_rate, eager_rate, max(differences))


def _views(dataset: Dataset, start: int, spec: FeatureSpec) -> Floats32:
    mean, std = input_statistics(spec.backbone)
    files = (dataset.read(image.image_id) for image in dataset.images[start : start + BATCH])
    views = (prediction_view(spec.transform.image(file), 0, spec.size) for file in files)
    return np.stack([normalise(view, mean, std) for view in views])


def _folded(spec: FeatureSpec) -> PooledFeatures:
    return PooledFeatures(load_backbone(spec.backbone, spec.weights), spec.levels)


def _eager(spec: FeatureSpec) -> Engine:
    network = PooledFeatures(load_pretrained(spec.backbone, spec.weights), spec.levels)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def run(views: Floats32) -> Floats32:
        images = torch.from_numpy(views).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            features: Floats32 = network(images).numpy()
        return features

    return run


def _relative_difference(ours: Floats32, theirs: Floats32) -> float:
    distances = np.linalg.norm(ours - theirs, axis=1)
    return float((distances / np.linalg.norm(theirs, axis=1)).max())
