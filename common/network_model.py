"""The classifier that fine-tuning gives: a whole network with its calibration."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from common.calibration import probabilities
from common.config import RunConfig
from common.engine import one_thread_per_core
from common.errors import DataError
from common.inference import prediction_features
from common.model_file import ModelFile, read_model_file
from common.network import DEVICE, Network, Weights, build

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class NetworkModel:
    """A fine-tuned network.

    Attributes
    ----------
    weights : the trained tensors by name; the others are the pretrained ones.
    calibration : (2, n_classes) scales and biases of the probabilities.
    classes : names of the classes.
    config : the run that trained it.
    """

    weights: Weights
    calibration: Floats
    classes: Sequence[str]
    config: RunConfig

    def scores(self, images: Iterable[bytes]) -> Floats:
        """Return logits (n, n_classes) of image files, averaged over the prediction views.

        Raises
        ------
        DataError
            If an image cannot be decoded.
        """
        network = self._network()
        with one_thread_per_core() as pool:
            features = prediction_features(network.backbone, images, self.config.feature_spec, pool)
        with torch.inference_mode():
            logits = network.head(torch.from_numpy(features).to(DEVICE)).cpu().numpy()
        return np.asarray(logits, dtype=np.float64)

    def predict(self, images: Iterable[bytes]) -> tuple[NDArray[np.int64], Floats]:
        """Return classes (n,), those of the largest logit, and probabilities."""
        values = self.scores(images)
        return values.argmax(axis=1), probabilities(values, self.calibration)

    def save(self, path: Path) -> None:
        """Write the model as one safetensors file."""
        arrays: dict[str, NDArray[Any]] = {**self.weights, "calibration": self.calibration}
        ModelFile(arrays, self.classes, self.config).write(path)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a model.

        Raises
        ------
        DataError
            If the file is not there or not such a model.
        """
        arrays, classes, config = read_model_file(path, "finetune")
        if "calibration" not in arrays:
            raise DataError(f"{path} is no FedDerm model (no calibration); name a run's model")
        calibration = np.asarray(arrays["calibration"], dtype=np.float64)
        weights = {
            name: np.asarray(a, dtype=np.float32)
            for name, a in arrays.items()
            if name != "calibration"
        }
        return cls(weights, calibration, classes, config)

    def _network(self) -> Network:
        network = build(self.config.backbone, self.config.weights)
        network.load(self.weights)
        return network
