"""A trained model as a file, safetensors and nothing that executes; and the door to all of them."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from common.config import RunConfig
from common.dataset import DIAGNOSES, Dataset
from common.errors import ConfigError, DataError
from common.files import write_atomically

Floats = NDArray[np.float64]

MODELS = {
    "svm": "common.model:LinearModel",
    "finetune": "common.network_model:NetworkModel",
    "private": "common.model:LinearModel",
    "private_finetune": "common.network_model:NetworkModel",
}
"""Classes by method, imported when they are asked for: not every method needs PyTorch."""

_ABOUT = "fedderm"


class Prediction(NamedTuple):
    """What a model says of n images.

    Attributes
    ----------
    labels : (n,) indices into the model's classes.
    probabilities : (n, n_classes).
    distance : (n,) how far each lies from the training images, about 1 is usual; None where
        the model cannot tell.
    """

    labels: NDArray[np.int64]
    probabilities: Floats
    distance: Floats | None


class Model(Protocol):
    """A trained classifier of images, whatever the method."""

    @property
    def classes(self) -> Sequence[str]:
        """Names of the classes."""

    @property
    def config(self) -> RunConfig:
        """The run that trained it."""

    @property
    def calibration(self) -> Floats:
        """Scales and biases, (2, n_classes), that make probabilities of scores."""

    def predict(self, images: Mapping[str, bytes]) -> Prediction:
        """Diagnose JPEG or PNG files, given as their bytes by name.

        Raises
        ------
        DataError
            If an image cannot be decoded, with its name.
        """

    def decide(self, scores: Floats) -> NDArray[np.int64]:
        """Return the classes (n,) for scores (n, n_classes)."""

    def dataset_scores(self, dataset: Dataset, cache: Path) -> Floats:
        """Return the scores (n, n_classes) of a dataset's images; a bar shows how far it is.

        Parameters
        ----------
        cache : folder of frozen features, for models that start from them.

        Raises
        ------
        DataError
            If an image cannot be read.
        """

    def save(self, path: Path) -> None:
        """Write it as one safetensors file."""


class ModelFile(NamedTuple):
    """Arrays by name, names of the classes, and the configuration of the run."""

    arrays: Mapping[str, NDArray[Any]]
    classes: Sequence[str]
    config: RunConfig

    def write(self, path: Path) -> None:
        """Write the file.

        Raises
        ------
        DataError
            If it cannot be written.
        """
        contiguous = {name: np.asarray(a, order="C") for name, a in self.arrays.items()}
        # Folders say where a run was, nothing about the model.
        config = self.config.model_dump(mode="json", exclude={"out", "sites", "cache"})
        about = json.dumps({"classes": list(self.classes), "config": config})
        # One key: safetensors writes several in random order, and equal models differ.
        write_atomically(path, save(contiguous, metadata={_ABOUT: about}))


def load_model(path: Path) -> Model:
    """Read the model that a run of any method wrote.

    Raises
    ------
    DataError
        If the file is not there or not such a model.
    ConfigError
        If the model's pretrained network cannot be had.
    """
    model: Model = resolve_name(MODELS[read_model_file(path).config.method]).load(path)
    return model


def read_model_file(path: Path, methods: Collection[str] = tuple(MODELS)) -> ModelFile:
    """Read a file that a run of one of ``methods`` wrote.

    Raises
    ------
    DataError
        If the file is not there or not such a model.
    """
    with refuse_foreign(path):
        with safe_open(path, "numpy") as file:
            about = json.loads(file.metadata()[_ABOUT])
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        config = RunConfig.read(about["config"])
        if config.method not in methods:
            raise ValueError(f"its method is {config.method}, not {' or '.join(methods)}")
        if tuple(about["classes"]) != DIAGNOSES:
            raise ValueError(f"its classes are not {', '.join(DIAGNOSES)}")
        return ModelFile(arrays, about["classes"], config)


@contextmanager
def refuse_foreign(path: Path) -> Iterator[None]:
    """Raise a DataError of one line for whatever comes of reading a file that is no model."""
    try:
        yield
    except (OSError, SafetensorError, LookupError, TypeError, ValueError, ConfigError) as error:
        raise DataError(f"{path} is no FedDerm model ({error}); name a run's model") from error


def check_arrays(
    arrays: Mapping[str, NDArray[Any]], expected: Mapping[str, tuple[int, ...]]
) -> None:
    """Check that arrays are those expected, by name and shape, and hold numbers.

    Raises
    ------
    ValueError
        If they are not, with the first that is odd.
    """
    for name in sorted(arrays.keys() | expected.keys()):
        if name not in expected:
            raise ValueError(f"array '{name}' is unknown")
        if name not in arrays:
            raise ValueError(f"array '{name}' is missing")
        if arrays[name].shape != expected[name]:
            shapes = f"{list(arrays[name].shape)}, expected {list(expected[name])}"
            raise ValueError(f"array '{name}' has the shape {shapes}")
        if np.isnan(arrays[name]).any():
            raise ValueError(f"array '{name}' has values that are no numbers")
