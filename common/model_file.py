"""A trained model as a file: safetensors and nothing that executes."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from common.config import RunConfig
from common.errors import ConfigError, DataError

_ABOUT = "fedderm"


class Model(Protocol):
    """A trained classifier."""

    def save(self, path: Path) -> None:
        """Write it as one safetensors file."""


class ModelFile(NamedTuple):
    """Arrays by name, names of the classes, and the configuration of the run."""

    arrays: Mapping[str, NDArray[Any]]
    classes: Sequence[str]
    config: RunConfig

    def write(self, path: Path) -> None:
        """Write the file."""
        contiguous = {name: np.ascontiguousarray(a) for name, a in self.arrays.items()}
        # Folders say where a run was, nothing about the model.
        config = self.config.model_dump(mode="json", exclude={"out", "sites", "cache"})
        about = json.dumps({"classes": list(self.classes), "config": config})
        # One key: safetensors writes several in random order, and equal models differ.
        save_file(contiguous, path, metadata={_ABOUT: about})


def read_model_file(path: Path, method: str) -> ModelFile:
    """Read a file that a run of ``method`` wrote.

    Raises
    ------
    DataError
        If the file is not there or not such a model.
    """
    try:
        with safe_open(path, "numpy") as file:
            about = json.loads(file.metadata()[_ABOUT])
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        config = RunConfig.read(about["config"])
        if config.method != method:
            raise ValueError(f"its method is {config.method}, not {method}")
        return ModelFile(arrays, about["classes"], config)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, ConfigError) as error:
        raise DataError(f"{path} is no FedDerm model ({error}); name a run's model") from error
