"""What a route costs outside training: features of an image, a diagnosis, megabytes."""

import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np

from common.config.run import RunConfig
from common.data.dataset import Dataset
from common.features.extract import content_keys, extract
from common.features.pretrained import weights_file
from common.models.file import Model, load_model
from simulations.study.analysis import ArmResult

BATCHES = (1, 32)

_SAMPLE = 48
"""Images that the time for features is measured on."""

_REPEATS = {1: 20, 32: 3}
_WARM_UP = 2


@dataclass(frozen=True)
class RouteCost:
    """Measured on this machine, on all of its cores.

    Attributes
    ----------
    feature_seconds : for what is computed once for a training image and kept on disk.
    latency : median seconds from the bytes of an image file to its diagnosis, by batch size.
    model_bytes, backbone_bytes : of the run's file, and of the pretrained weights beside it.
    """

    feature_seconds: float
    latency: Mapping[int, float]
    model_bytes: int
    backbone_bytes: int


@dataclass(frozen=True)
class ArmCost:
    """What it took to train an arm, means over its folds.

    Attributes
    ----------
    features : seconds to compute the features of the training images, were they not on disk.
    training, waiting : seconds that a site with a machine of its own trains, and waits for the
        slowest in each round and for the coordinator.
    wall : seconds in this simulation, where sites train one after the other; features were there.
    computing : seconds for features, and for the training of all sites.
    peak_memory : largest of a process that held all sites and the coordinator, in bytes; None
        where the system does not tell.
    rounds : questions to the sites, choices, calibration and validation included.
    up, down : bytes a site sends and receives in a round, on average.
    """

    features: float
    training: float
    waiting: float
    wall: float
    computing: float
    peak_memory: int | None
    rounds: float
    up: float
    down: float


def arm_cost(result: ArmResult, routes: Mapping[str, RouteCost]) -> ArmCost | None:
    """Return the cost of an arm; None where every fold was interrupted, or none is there."""
    cells = [cell for cell in result.cells.values() if cell["seconds"]]
    if not cells or result.arm.route not in routes:
        return None
    each = routes[result.arm.route].feature_seconds

    def mean(value: Callable[[Mapping[str, Any]], float]) -> float:
        return fmean(map(value, cells))

    features = each * mean(lambda cell: cell["training"]["images"])
    peaks = [cell["peak_memory"] for cell in cells if cell["peak_memory"]]
    return ArmCost(
        features=features,
        training=mean(lambda cell: cell["seconds"]["training"]),
        waiting=mean(lambda cell: cell["seconds"]["waiting"]),
        wall=mean(lambda cell: cell["seconds"]["wall"]),
        computing=features + mean(lambda cell: cell["seconds"]["training"] * cell["sites"]),
        peak_memory=max(peaks, default=None),
        rounds=mean(lambda cell: cell["rounds"]),
        up=mean(lambda cell: cell["bytes_up"] / cell["rounds"] / cell["sites"]),
        down=mean(lambda cell: cell["bytes_down"] / cell["rounds"] / cell["sites"]),
    )


def warm_up(dataset: Dataset, config: RunConfig) -> None:
    """Compute what the runs of a route keep of the images, so that cells only read it."""
    _features(dataset, config, config.cache.expanduser())


def measure_route(dataset: Dataset, config: RunConfig, model_file: Path) -> RouteCost:
    """Measure a route; the machine should do nothing else meanwhile.

    Parameters
    ----------
    dataset : whose first images are taken.
    model_file : of one of its runs.
    """
    sample = dataset.select(np.arange(min(_SAMPLE, len(dataset))))
    model = load_model(model_file, config.weights)
    return RouteCost(
        _feature_seconds(sample, config),
        {batch: _latency(model, sample, batch) for batch in BATCHES},
        model_file.stat().st_size,
        weights_file(config.backbone, config.weights).stat().st_size,
    )


def _features(dataset: Dataset, config: RunConfig, cache: Path) -> None:
    if config.method == "finetune":
        from common.networks.activations import activations
        from common.networks.network import ALL, shared_network

        network = shared_network(config.backbone, config.weights)
        frozen = [stage for stage in config.stages if stage != ALL]
        if frozen:
            activations(network, frozen, dataset, content_keys(dataset), config.feature_spec, cache)
    elif config.method != "private_finetune":  # whose cells compute their own
        extract(dataset, config.feature_spec, cache, progress=True)


def _feature_seconds(sample: Dataset, config: RunConfig) -> float:
    """Return seconds an image, without what is done once for a network."""
    with tempfile.TemporaryDirectory() as folder:
        networks = config.cache.expanduser().resolve() / "networks"
        if networks.exists():  # exported before
            (Path(folder) / networks.name).symlink_to(networks)
        _features(sample.select(np.arange(1)), config, Path(folder))
        others = sample.select(np.arange(1, len(sample)))
        return _seconds(lambda: _features(others, config, Path(folder))) / len(others)


def _latency(model: Model, sample: Dataset, batch: int) -> float:
    images = [sample.read(image.image_id) for image in sample.images[:batch]]
    # A set of fewer images than a batch is taken again.
    files = {str(number): images[number % len(images)] for number in range(batch)}
    for _ in range(_WARM_UP):
        model.predict(files)
    return median(_seconds(lambda: model.predict(files)) for _ in range(_REPEATS[batch]))


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
