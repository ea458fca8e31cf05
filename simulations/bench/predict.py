"""How fast an answer comes: from the start of a process, and in batches beside PyTorch."""

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from common.arrays import Floats32
from common.config.run import RunConfig
from common.data.dataset import Dataset
from common.features.augment import normalise, prediction_view
from common.features.backbone import PooledFeatures, input_statistics, load_backbone
from common.features.extract import FeatureSpec
from common.features.inference_engine import one_thread_per_core, torch_engine
from common.networks.inference import prediction_features
from common.networks.network import shared_network
from common.networks.spatial_maps import map_network
from simulations.bench.measurement import Measurement, timed
from simulations.data.synthetic import write_synthetic
from simulations.runtimes.experiment import POOLED, train

IMAGES = 32
"""Images in a turn: the two ways take turns, and the fastest turn of each counts."""

_TURNS = 5
_STARTS = 3
_PREDICT = "from simulations.cli.main import main; main()"
SETTINGS: Mapping[str, Mapping[str, object]] = {
    "SVM": {"folds": 2, "views": 1, "min_active": 1},
    "network": {"method": "finetune", "folds": 2, "views": 1, "stages": "head", "rounds": 1},
}
"""Settings of the smallest runs whose predictions cost what those of long ones cost."""

_LONGEST = {"SVM": "at most 3", "network": "at most 4"}

Files = Mapping[str, bytes]
Way = Callable[[Files], Floats32]
"""Maps n image files by name to features, (n, P, D) or averaged over the views, (n, D)."""


def bench_predict(data: Path) -> Iterator[Measurement]:
    """Yield the seconds of ``fedderm predict`` on one image, and images a second of many.

    The first answer of a model exports its network, as the first of a process in batches does: it
    is not counted.
    """
    dataset = Dataset.open(data)
    with tempfile.TemporaryDirectory() as folder:
        for name, settings in SETTINGS.items():
            seconds = _cold_start(Path(folder) / name, settings, dataset)
            what = f"fedderm predict, one image, {name}, whole process"
            yield Measurement(what, seconds, "s", _LONGEST[name])
        for name, settings in SETTINGS.items():
            spec = RunConfig.read_settings(settings).feature_spec
            ways = _network_ways if name == "network" else _svm_ways
            yield from _rates(name, dataset, ways(spec, Path(folder)))


def _cold_start(folder: Path, settings: Mapping[str, object], dataset: Dataset) -> float:
    """Train a small run, and return the fewest seconds of a process that diagnoses one image."""
    run = small_run(folder, settings)
    image = folder / "image.jpg"
    image.write_bytes(dataset.read(dataset.images[0].image_id))
    command = [sys.executable, "-c", _PREDICT, "predict", str(run), str(image)]
    call = partial(subprocess.run, command, check=True, capture_output=True)
    call()  # exports the network
    return min(timed(call)[1] for _ in range(_STARTS))


def small_run(folder: Path, settings: Mapping[str, object]) -> Path:
    """Train a run on synthetic images in a folder, and return its own."""
    write_synthetic(folder / "data", images=120, seed=0)
    return train(RunConfig.read_settings(settings), folder / "data", folder / "out", POOLED)


def _svm_ways(spec: FeatureSpec, folder: Path) -> tuple[Way, Way]:
    mean, std = input_statistics(spec.backbone)
    network = PooledFeatures(load_backbone(spec.backbone, spec.weights), spec.levels)
    engine = torch_engine(network)

    def row(data: bytes) -> Floats32:
        image = spec.transform.image(data)
        views = (prediction_view(image, k, spec.size) for k in range(spec.predictions))
        return np.stack([engine(normalise(view, mean, std)) for view in views])

    def by_torch(files: Files) -> Floats32:
        with one_thread_per_core() as pool:
            return np.stack(list(pool.map(row, files.values())))

    return map_network(spec, [folder]).features, by_torch


def _network_ways(spec: FeatureSpec, folder: Path) -> tuple[Way, Way]:
    network = shared_network(spec.backbone, spec.weights, 2)  # without its head
    network.load({})

    def by_torch(files: Files) -> Floats32:
        with one_thread_per_core() as pool:
            return prediction_features(network.backbone, files.values(), spec, pool)

    exported = map_network(replace(spec, levels=0), [folder], {})
    return lambda files: exported.features(files).mean(axis=1), by_torch


def _rates(name: str, dataset: Dataset, ways: tuple[Way, Way]) -> Iterator[Measurement]:
    seconds, differences = [], []
    for turn in range(_TURNS):
        images = dataset.images[turn * IMAGES : (turn + 1) * IMAGES]
        files = {image.image_id: dataset.read(image.image_id) for image in images}
        (ours, fast), (theirs, slow) = (timed(partial(way, files)) for way in ways)
        seconds.append((fast / len(files), slow / len(files)))
        differences.append(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))
    fast, slow = np.min(seconds, axis=0).tolist()
    yield Measurement(f"predict, {name}, in batches, ONNX Runtime", 1 / fast, "images/s")
    yield Measurement(f"predict, {name}, in batches, PyTorch", 1 / slow, "images/s")
    yield Measurement(f"predict, {name}, ratio", slow / fast, "", "at least 2")
    difference = float(max(differences))
    yield Measurement(f"predict, {name}, relative difference", difference, "", "below 1e-4")
