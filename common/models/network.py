"""The classifier of fine-tuning: a whole network with its calibration."""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Self

import numpy as np
import torch
from tqdm import tqdm

from common.answers.basis import AnswerBasis
from common.arrays import Floats, Floats32
from common.config.run import RunConfig
from common.data.dataset import Dataset
from common.errors import DataError
from common.features.augment import decode
from common.features.inference_engine import one_thread_per_core
from common.models.file import ModelFile, Prediction, check_answers, open_model
from common.networks.inference import BLOCK, prediction_features
from common.networks.network import DEVICE, HEAD, Network, Weights, shared_network
from common.task import DIAGNOSES
from common.verified import Kind


@dataclass(frozen=True)
class NetworkModel:
    """A fine-tuned network.

    Attributes
    ----------
    weights : the trained tensors by name, of the network's shapes; the others are the pretrained
        ones.
    basis : what makes probabilities and decisions of the scores, and the calibration lesions.
    classes : names of the classes.
    config : the run that trained it.
    """

    weights: Weights
    basis: AnswerBasis
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
        chances = self.basis.probabilities(self.scores(images.items()))
        return Prediction(chances.argmax(axis=1), chances, None)

    def save(self, path: Path) -> None:
        """Write the model as one safetensors file."""
        ModelFile(self.weights, self.basis, self.classes, self.config).write(path)

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
            arrays, basis = stored.read(opened)
        return cls(arrays, basis, DIAGNOSES, config)

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
