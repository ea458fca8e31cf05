"""Federations that fine-tune a small network with random weights in about a second."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from common.config.run import RunConfig, settings_of
from common.data.dataset import Dataset
from common.data.image import Image
from common.data.splits import TEST, site_splits
from common.methods import METHODS
from common.models.network import NetworkModel
from common.networks.network import HEAD
from server.run.folder import MODEL_FILE
from server.run.progress import TRAINING_FILE
from simulations.data.partition import write_sites
from tests.sites import with_changes

import timm  # isort: skip  (after common.networks.network, which makes it importable)

BACKBONE = "test_resnet"
STAGE = "layer4"
SIZE = 32

Ints = NDArray[np.int64]
SiteOf = Callable[[int, Image], str]
"""Names the site of a lesion, by the number and the first image of the lesion."""


def write_network(file: Path, backbone: str = BACKBONE) -> Path:
    """Save random weights as published files hold them; BatchNorms have seen images."""
    torch.manual_seed(0)
    model = timm.create_model(backbone)
    with torch.no_grad():
        for _ in range(10):
            model.train()(torch.randn(8, 3, 64, 64))
    save_file(model.state_dict(), file)
    return file


def quick(folder: Path, weights: Path, **changes: Any) -> RunConfig:
    """Return the configuration of a run below ``folder``, over ``folder/sites``."""
    settings: dict[str, Any] = {
        "method": "finetune",
        "backbone": BACKBONE,
        "weights": weights,
        "size": SIZE,
        "views": 2,
        "predictions": 1,
        "folds": 3,
        "stages": (HEAD, STAGE, "all"),
        "rounds": 2,
        "local_epochs": 1.0,
        "batch": 16,
        "lr": 0.01,
        "validate_every": 2,
        "sites": folder / "sites",
        "cache": folder / "cache",
        "out": folder / "run",
    }
    used = settings_of(METHODS[changes.get("method", settings["method"])])
    return RunConfig.read({k: v for k, v in settings.items() if k in used} | changes)


def small_dataset(data: Path, images: int = 40, validation: bool = True) -> Dataset:
    """Open a part of the data with its splits; about 20 of 40 images are for training."""
    dataset = Dataset.open(data)
    order = np.random.default_rng(0).permutation(len(dataset.by_lesion.sizes))
    place = np.argsort(order)[dataset.by_lesion.index]
    dataset = dataset.select(np.sort(np.argsort(place, kind="stable")[:images]))
    dataset = dataset.with_splits(site_splits(dataset, 0.3, 3, seed=0))
    return dataset if validation else dataset.select(dataset.splits != "0")


def training_labels(dataset: Dataset) -> Ints:
    """Return the labels of the images that the sites train on."""
    return dataset.labels[(dataset.splits != TEST) & (dataset.splits != "0")]


def spread(dataset: Dataset, folder: Path, site_of: SiteOf) -> Path:
    """Write the sites of a partition of the lesions into ``folder/sites``."""
    first = np.unique(dataset.by_lesion.index, return_index=True)[1]
    names = np.array([site_of(k, dataset.images[i]) for k, i in enumerate(first)])
    of_image = names[dataset.by_lesion.index]
    parts: Mapping[str, Ints] = {n: np.flatnonzero(of_image == n) for n in sorted(set(names))}
    write_sites(dataset, parts, folder / "sites", link=True)
    return folder


def dealt(sites: int) -> SiteOf:
    """Deal the lesions to sites like cards."""
    return lambda number, image: f"site_{number % sites:02}"


SITES = 3
SGD: dict[str, Any] = {"optimizer": "sgd", "momentum": 0}
SCAFFOLD: dict[str, Any] = {**SGD, "strategy": "scaffold"}


def changed(config: RunConfig, out: Path, **changes: Any) -> RunConfig:
    """Return the configuration of another run."""
    return with_changes(config, {"out": out, **changes})


def training_log(run: RunConfig) -> list[dict[str, Any]]:
    """Return what a run says of its rounds, one entry a round."""
    assert run.out is not None
    return [json.loads(line) for line in (run.out / TRAINING_FILE).read_text().splitlines()]


def model_of(run: RunConfig) -> NetworkModel:
    """Read a finished run's model."""
    assert run.out is not None
    return NetworkModel.load(run.out / MODEL_FILE, run.weights)


def content_of(run: RunConfig, name: str = MODEL_FILE) -> bytes:
    """Read a file of a run, the model unless told."""
    assert run.out is not None
    return (run.out / name).read_bytes()
