"""Measuring what a route costs outside training, on this machine."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np

from client.method import client_method
from common.config.run import RunConfig
from common.data.dataset import Dataset
from common.features.pretrained import weights_file
from common.models.predictor import Predictor
from simulations.study.cost import BATCHES, RouteCost

_SAMPLE = 48
"""Images that the time for features is measured on."""

_REPEATS = {1: 20, 32: 3}
_WARM_UP = 2


def warm_up(dataset: Dataset, config: RunConfig) -> None:
    """Compute what the runs of a route keep of the images, so that cells only read it."""
    client_method(config).prepare(dataset, config, config.cache.expanduser())


def measure_route(dataset: Dataset, config: RunConfig, model_file: Path) -> RouteCost:
    """Measure a route; the machine should do nothing else meanwhile.

    Parameters
    ----------
    dataset : the data set whose first images are measured.
    model_file : the model file of one of its runs.
    """
    sample = dataset.select(np.arange(min(_SAMPLE, len(dataset))))
    predictor = Predictor.open(model_file, config.weights)
    return RouteCost(
        _feature_seconds(sample, config),
        {batch: _latency(predictor, sample, batch) for batch in BATCHES},
        model_file.stat().st_size,
        weights_file(config.backbone, config.weights).stat().st_size,
    )


def _feature_seconds(sample: Dataset, config: RunConfig) -> float:
    """Return seconds an image, without what is done once for a network."""
    with tempfile.TemporaryDirectory() as folder:
        networks = config.cache.expanduser().resolve() / "networks"
        if networks.exists():  # exported before
            (Path(folder) / networks.name).symlink_to(networks)
        prepare = client_method(config).prepare
        prepare(sample.select(np.arange(1)), config, Path(folder))
        others = sample.select(np.arange(1, len(sample)))
        return _seconds(lambda: prepare(others, config, Path(folder))) / len(others)


def _latency(predictor: Predictor, sample: Dataset, batch: int) -> float:
    images = [sample.read(image.image_id) for image in sample.images[:batch]]
    # A set of fewer images than a batch is taken again.
    files = {str(number): images[number % len(images)] for number in range(batch)}
    for _ in range(_WARM_UP):
        predictor.predict(files)
    return median(_seconds(lambda: predictor.predict(files)) for _ in range(_REPEATS[batch]))


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
