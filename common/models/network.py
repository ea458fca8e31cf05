"""The classifier of fine-tuning: a whole network with its calibration."""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
from tqdm import tqdm

from common.answers.basis import AnswerBasis
from common.arrays import Floats, Floats32
from common.config.run import RunConfig
from common.data.dataset import Dataset
from common.data.metadata import UNKNOWN, Described, encode
from common.errors import DataError
from common.explanations.evidence import PooledHead, network_head
from common.features.transform import Transform
from common.models.file import ModelFile, check_answers, check_kinds, network_folders, open_model
from common.networks.fusion import METADATA, fusion_of, heard, told
from common.networks.spatial_maps import is_kept, pooled
from common.storage.verified import Array, Kind
from common.task import Task

if TYPE_CHECKING:
    from common.networks.network import Network

# PyTorch takes seconds to import: it is where a network is not exported yet, or scores a dataset.

_HEAD = ("head.weight", "head.bias")


@dataclass(frozen=True)
class NetworkModel:
    """A fine-tuned network.

    Attributes
    ----------
    weights : the trained tensors by name, of the network's shapes; the others are the pretrained
        ones.
    basis : what makes probabilities and decisions of the scores, and the calibration lesions.
    config : the run that trained it.
    """

    weights: Mapping[str, Floats32]
    basis: AnswerBasis
    config: RunConfig

    @property
    def task(self) -> Task:
        """The diagnoses that it tells apart."""
        return self.basis.task

    @property
    def trained(self) -> Mapping[str, Floats32]:
        """The trained tensors by name, of the network's shapes."""
        return self.weights

    def judge(self, maps: Sequence[Floats32], about: Described = UNKNOWN) -> Floats:
        """Return the logits (n_classes,) of an image.

        Parameters
        ----------
        maps : by level (P, channels, height, width), over the image's P prediction views.
        about : what is known of the patient; a model without metadata ignores it.

        Raises
        ------
        DataError
            If the model gives no numbers.
        """
        features = pooled(maps[-1:]).mean(axis=0)
        with np.errstate(over="ignore", invalid="ignore"):
            weight, bias = self.last_layer(about)
            logits = weight @ features + bias
        return check_answers(np.asarray(logits))

    def head(self, about: Described = UNKNOWN) -> PooledHead:
        """Return its last layer, which is linear in the pooled last map.

        Parameters
        ----------
        about : what is known of the patient, which its weights and intercepts then hold.
        """
        return network_head(*self.last_layer(about))

    def last_layer(self, about: Described) -> tuple[Floats, Floats]:
        """Return the last layer as it is for a patient, behind the pooled features.

        Parameters
        ----------
        about : what is known of the patient.

        Returns
        -------
        Weights (n_classes, n_features) and intercepts (n_classes,).
        """
        weight, bias = (self.weights[name].astype(np.float64) for name in _HEAD)
        if not self.config.metadata:
            return weight, bias
        return told(self.config.fusion, self.weights, (weight, bias), self.numbers([about])[0])

    def numbers(self, rows: Sequence[Described]) -> Floats32:
        """Return the metadata of n rows as the network takes them, (n, width)."""
        columns = self.config.metadata
        return heard(columns, encode(columns, rows), self.weights)

    def scores(self, images: Iterable[tuple[str, bytes]], rows: Sequence[Described] = ()) -> Floats:
        """Return logits (n, n_classes), averaged over the prediction views, by PyTorch.

        Parameters
        ----------
        images : names and bytes of image files, at least one.
        rows : what is known of the n patients, nothing if empty; a model without metadata ignores
            it.

        Raises
        ------
        DataError
            If an image cannot be decoded, with its name, or the model gives no numbers.
        """
        import torch

        from common.features.inference_engine import one_thread_per_core
        from common.networks.inference import BLOCK
        from common.networks.network import run_network, to_device

        network = run_network(self.config)
        network.load(self.weights)
        files, features = iter(images), []
        with one_thread_per_core() as pool:
            while block := dict(islice(files, BLOCK)):
                features.append(self._features(network, block, pool))
        pooled_ = np.concatenate(features)
        about = self.numbers(rows or [UNKNOWN] * len(pooled_))
        with torch.inference_mode():
            inputs = (to_device(torch.from_numpy(each)) for each in (pooled_, about))
            logits = network.classify(*inputs).cpu()
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
        shown = tqdm(files, total=len(dataset), unit="image", disable=None)
        return self.scores(shown, dataset.images)

    def save(self, path: Path) -> None:
        """Write the model as one safetensors file."""
        ModelFile(self.weights, self.basis, self.config).write(path)

    @classmethod
    def load(cls, path: Path, *weights: Path | None) -> Self:
        """Read a model; parameters and errors are those of ``load_model``."""
        with open_model(path, cls, weights) as stored:
            config, kinds = stored.config, stored.own_kinds
            arrays, basis = stored.read(kinds)
            # Tensors of which a network was made before fit it.
            if not is_kept(config.feature_spec, network_folders(path, config), arrays):
                check_kinds(kinds, _expected(config, arrays))
            _check_fusion(config, kinds)
        return cls(arrays, basis, config)

    def _features(self, network: "Network", files: Mapping[str, bytes], pool: Executor) -> Floats32:
        from common.networks.inference import prediction_features

        spec = self.config.feature_spec
        try:
            return prediction_features(network.backbone, files.values(), spec, pool)
        except DataError:
            _name_unreadable(files, spec.transform)
            raise


def _expected(config: RunConfig, arrays: Mapping[str, Array]) -> dict[str, Kind]:
    """Return what the tensors of a file must be in the network of its configuration.

    Every stage trains the head; tensors that no stage opened are not in the file.
    """
    from common.networks.network import OWN, run_network

    network = run_network(config)
    return {
        name: Kind("F32", tuple(tensor.shape))
        for name, tensor in network.pretrained.items()
        if name in arrays or name.startswith(OWN)
    }


def _check_fusion(config: RunConfig, kinds: Mapping[str, Kind]) -> None:
    """Check the tensors for metadata, which no kept network has."""
    if fusion := fusion_of(config.fusion, config.metadata):
        shapes = fusion.shapes(*kinds[_HEAD[0]].shape)
        own = {name: kind for name, kind in kinds.items() if name.startswith(f"{METADATA}.")}
        check_kinds(own, {name: Kind("F32", shape) for name, shape in shapes.items()})


def _name_unreadable(files: Mapping[str, bytes], transform: Transform) -> None:
    """Raise a DataError that names the first file that cannot be decoded."""
    for name, data in files.items():
        try:
            transform.image(data)
        except DataError as error:
            raise DataError(f"{name}: {error}") from error
