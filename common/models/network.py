"""The classifier of fine-tuning: a whole network with its calibration."""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from common.arrays import Floats, Floats32, Ints
from common.config.run import RunConfig
from common.data.dataset import Dataset
from common.errors import DataError
from common.features.augment import decode
from common.features.inference_engine import one_thread_per_core
from common.models.file import ModelFile, Prediction, check_answers, open_model
from common.networks.inference import BLOCK, prediction_features
from common.networks.network import DEVICE, HEAD, Network, Weights, shared_network
from common.statistics.calibration import decisions, probabilities
from common.task import DIAGNOSES, N_CLASSES
from common.verified import Kind

_RULE = {
    "calibration": Kind("F64", (2, N_CLASSES)),
    "priors": Kind("F64", (N_CLASSES,)),
}


@dataclass(frozen=True)
class NetworkModel:
    """A fine-tuned network.

    Attributes
    ----------
    weights : the trained tensors by name, of the network's shapes; the others are the pretrained
        ones.
    calibration : (2, n_classes) scales and biases of the probabilities.
    priors : (n_classes,) frequencies of the classes among the training images.
    classes : names of the classes.
    config : the run that trained it.
    """

    weights: Weights
    calibration: Floats
    priors: Floats
    classes: Sequence[str]
    config: RunConfig

    def scores(self, images: Iterable[tuple[str, bytes]]) -> Floats:
        """Return logits (n, n_classes), averaged over the prediction views.

        Parameters
        ----------
        images : names and bytes of JPEG or PNG files, at least one.

        Raises
        ------
        DataError
            If an image cannot be decoded, with its name, or the model gives no numbers.
        """
        network = shared_network(self.config.backbone, self.config.weights)
        network.load(self.weights)
        files, rows = iter(images), []
        with one_thread_per_core() as pool:
            while block := dict(islice(files, BLOCK)):
                rows.append(self._features(network, block, pool))
        with torch.inference_mode():
            logits = network.head(torch.from_numpy(np.concatenate(rows)).to(DEVICE)).cpu()
        return check_answers(np.asarray(logits.numpy(), dtype=np.float64))

    def dataset_scores(self, dataset: Dataset, cache: Path) -> Floats:
        """Return logits (n, n_classes) of a dataset's images; ``cache`` is not used.

        Raises
        ------
        DataError
            If an image cannot be read.
        """
        names = (image.image_id for image in dataset.images)
        files = ((name, dataset.read(name)) for name in names)
        return self.scores(tqdm(files, total=len(dataset), unit="image", disable=None))

    def predict(self, images: Mapping[str, bytes]) -> Prediction:
        """Diagnose JPEG or PNG files, given as their bytes by name.

        Raises
        ------
        DataError
            If an image cannot be decoded, with its name.
        """
        values = self.scores(images.items())
        return Prediction(self.decide(values), probabilities(values, self.calibration), None)

    def decide(self, scores: Floats) -> Ints:
        """Return the classes (n,) for ``scores`` (n, n_classes), by :func:`decisions`."""
        return decisions(scores, self.calibration, self.priors)

    def save(self, path: Path) -> None:
        """Write the model as one safetensors file."""
        rule = {"calibration": self.calibration, "priors": self.priors}
        arrays: dict[str, NDArray[Any]] = {**self.weights, **rule}
        ModelFile(arrays, self.classes, self.config).write(path)

    @classmethod
    def load(cls, path: Path, *weights: Path | None) -> Self:
        """Read a model; parameters and errors are those of ``load_model``."""
        with open_model(path, cls, weights) as stored:
            config = stored.config
            network = shared_network(config.backbone, config.weights)
            # Every stage trains the head; tensors that no stage opened are not in the file.
            opened = {
                name: Kind("F32", tuple(tensor.shape))
                for name, tensor in network.pretrained.items()
                if name in stored.kinds or name.startswith(f"{HEAD}.")
            }
            arrays = stored.read({**opened, **_RULE})
            calibration, priors = (arrays.pop(name) for name in _RULE)
            if not (priors >= 0).all() or not priors.any():
                raise ValueError("array 'priors' has values that no frequencies have")
        return cls(arrays, calibration, priors, DIAGNOSES, config)

    def _features(self, network: Network, files: Mapping[str, bytes], pool: Executor) -> Floats32:
        spec = self.config.feature_spec
        try:
            return prediction_features(network.backbone, files.values(), spec, pool)
        except DataError:
            _name_unreadable(files, spec.size)
            raise


def _name_unreadable(files: Mapping[str, bytes], size: int) -> None:
    """Raise a DataError that names the first file that cannot be decoded."""
    for name, data in files.items():
        try:
            decode(data, size)
        except DataError as error:
            raise DataError(f"{name}: {error}") from error
