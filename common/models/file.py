"""Trained models as safetensors files, which hold nothing that executes; saving and loading."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from common.answers.basis import AnswerBasis, expected_kinds
from common.arrays import Floats, Floats32, Ints
from common.config.run import RunConfig, settings_of
from common.config.task_settings import settings_for
from common.data.dataset import Dataset
from common.data.metadata import UNKNOWN, Described
from common.errors import ConfigError, DataError, reason
from common.features.pretrained import find_weights, weights_digest
from common.json_types import Json
from common.methods import METHODS
from common.storage.verified import (
    FORMAT_ERRORS,
    Array,
    Kind,
    StoredArrays,
    open_arrays,
    write_arrays,
)
from common.task import Task
from common.text import is_site_name

if TYPE_CHECKING:
    from common.explanations.evidence import PooledHead

VERSION = 5
"""Version of the description in a model file; raise it with every change."""

LARGEST = np.float64(1e100)
"""Largest number in a model and in its scores, so that products stay finite."""

_WEIGHTS = "weights"
_SITES = "sites"
_TASK = "task"

_PLACES = {"out", "sites", "cache", "weights", "model", "parent"}
"""Keys that say where something lay on the machine of the run, nothing about the model."""


class Prediction(NamedTuple):
    """A model's predictions for n images.

    Attributes
    ----------
    labels : (n,) diagnoses, the likeliest ones if not said otherwise, as indices into the model's
        classes.
    probabilities : (n, n_classes).
    distance : (n,) distance of each image from the training images, about 1 as a rule; None where
        the model has no such measure.
    """

    labels: Ints
    probabilities: Floats
    distance: Floats | None


class Model(Protocol):
    """A trained classifier of images, whatever the method."""

    @property
    def task(self) -> Task:
        """The diagnoses that it tells apart."""

    @property
    def config(self) -> RunConfig:
        """The run that trained it."""

    @property
    def basis(self) -> AnswerBasis:
        """What makes probabilities and decisions of its scores, and its calibration lesions."""

    @property
    def trained(self) -> Mapping[str, Floats32] | None:
        """Tensors of a trained network, of its shapes, by name; None where it is as pretrained."""

    def judge(self, maps: Sequence[Floats32], about: Described = UNKNOWN) -> Floats:
        """Return the scores (n_classes,) of an image.

        Parameters
        ----------
        maps : by level (P, channels, height, width), over the image's P prediction views.
        about : what is known of the patient; a model without metadata ignores it.

        Raises
        ------
        DataError
            If the model gives no numbers.
        """

    def numbers(self, rows: Sequence[Described]) -> Floats32:
        """Return what the model takes of n patients, (n, width); nothing without metadata.

        A value that no training site had counts as unknown.
        """

    def head(self, about: Described = UNKNOWN) -> "PooledHead":
        """Return the classifier as one that is linear in pooled maps, to find its evidence.

        Parameters
        ----------
        about : what is known of the patient, which adds to the scores from no place of the image.

        Raises
        ------
        ConfigError
            If it is none, with the reason.
        """

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
    """What a model's file holds.

    Attributes
    ----------
    arrays : by name, of the shapes that the model's class documents.
    basis : what its answers rest on beside its scores.
    config : the configuration of the run.
    """

    arrays: Mapping[str, Array]
    basis: AnswerBasis
    config: RunConfig

    def write(self, path: Path) -> None:
        """Write the file, with the digest of the pretrained weights that the model rests on.

        Raises
        ------
        ConfigError
            If these weights are gone.
        DataError
            If it cannot be written.
        """
        fields: dict[str, Json] = {
            "version": VERSION,
            _TASK: {key: list(value) for key, value in settings_for(self.basis.task).items()},
            "config": self.config.model_dump(mode="json", exclude=_PLACES),
            _WEIGHTS: weights_digest(self.config.backbone, self.config.weights),
            _SITES: list(self.basis.by_site),
        }
        write_arrays(path, {**self.arrays, **self.basis.to_record()}, fields)


@dataclass(frozen=True)
class OpenModel:
    """A model file of which only the description was read and checked.

    Attributes
    ----------
    config : the run that trained it, with the path of the weights file on this machine.
    kinds : what its arrays claim to be, by name.
    sites : names of the sites that its basis tells apart.
    """

    config: RunConfig
    kinds: Mapping[str, Kind]
    sites: Sequence[str]
    _stored: StoredArrays

    @property
    def own_kinds(self) -> dict[str, Kind]:
        """What the arrays beside those of the basis claim to be, by name."""
        return {n: kind for n, kind in self.kinds.items() if n not in self._basis_kinds}

    @property
    def _basis_kinds(self) -> dict[str, Kind]:
        return expected_kinds(self.config.task, len(self.sites), self.config.patient_groups)

    def read(self, own: Mapping[str, Kind]) -> tuple[dict[str, Array], AnswerBasis]:
        """Return the arrays, of the ``own`` shapes, and the basis.

        Raises
        ------
        ValueError
            If they are not, with the first that differs, or are not what was written.
        """
        expected = {**own, **self._basis_kinds}
        check_kinds(self.kinds, expected)
        arrays = self._stored.read()
        _check_finite(arrays)
        config = self.config
        basis = AnswerBasis.take(config.task, arrays, self.sites, config.patient_groups)
        return arrays, basis


def network_folders(path: Path, config: RunConfig) -> list[Path]:
    """Return where the exported network of the model file ``path`` may be: beside it first."""
    return [path.parent, config.cache.expanduser() / "networks"]


def load_model(path: Path, *weights: Path | None) -> Model:
    """Read the model that a run of any method wrote.

    Parameters
    ----------
    weights : files to search for the model's pretrained weights, by their digest, beside those of
        the default backbone. The model file cannot make this open another file.

    Raises
    ------
    DataError
        If the file is not there or not such a model.
    ConfigError
        If the model's pretrained weights are missing.
    """
    with _refuse_foreign(path), open_arrays(path) as stored:
        method = _read_config(stored.fields).method
    model: Model = resolve_name(METHODS[method].model).load(path, *weights)
    return model


@contextmanager
def open_model(
    path: Path, kind: type[Model], weights: Sequence[Path | None]
) -> Iterator[OpenModel]:
    """Open a model file of a method whose models are of class ``kind``.

    Errors of the file become a ``DataError``, those that show inside the block too.

    Raises
    ------
    DataError
        If the file is not there or not such a model.
    ConfigError
        If none of ``weights`` has the digest that the model needs.
    """
    with _refuse_foreign(path), open_arrays(path) as stored:
        config = _read_config(stored.fields)
        name = f"{kind.__module__}:{kind.__qualname__}"  # to import those of others takes long
        methods = [method.name for method in METHODS.values() if method.model == name]
        if config.method not in methods:
            raise ValueError(f"its method is {config.method}, not {' or '.join(methods)}")
        file = _find_weights(path, config.backbone, stored.fields[_WEIGHTS], weights)
        sites = _read_sites(stored.fields[_SITES])
        yield OpenModel(config.model_copy(update={"weights": file}), stored.kinds, sites, stored)


@contextmanager
def _refuse_foreign(path: Path) -> Iterator[None]:
    """Turn any error of reading a file that is no model into a DataError of one line."""
    try:
        yield
    except FORMAT_ERRORS as error:
        raise DataError(
            f"{path} is no FedDerm model ({reason(error)}); name a run's model"
        ) from error


def check_kinds(claimed: Mapping[str, Kind], expected: Mapping[str, Kind]) -> None:
    """Check that arrays are of the types and shapes expected, by name.

    Raises
    ------
    ValueError
        If they are not, with the first that differs.
    """
    shapes = ({name: kind.shape for name, kind in kinds.items()} for kinds in (claimed, expected))
    _check_shapes(*shapes)
    for name, want in expected.items():
        if claimed[name].dtype != want.dtype:
            raise ValueError(f"array '{name}' is {claimed[name].dtype}, expected {want.dtype}")


def check_answers(values: Floats) -> Floats:
    """Check ``values`` of any shape, which a model gave; return them in the same shape.

    Raises
    ------
    DataError
        If one is no finite number: even finite weights may be so large that scores overflow.
    """
    if not (np.abs(values) <= LARGEST).all():
        raise DataError(
            "the model gives values that are no finite numbers; it is damaged, train it again"
        )
    return values


def _read_config(fields: Mapping[str, Any]) -> RunConfig:
    if fields.get("version") != VERSION:
        raise ValueError("another version of FedDerm wrote it; train it again")
    config = fields["config"]
    if odd := sorted(_PLACES & config.keys()):
        raise ValueError(f"it says '{odd[0]}', which is for its user to say")
    if no_model := METHODS[config["method"]].no_model:
        raise ValueError(no_model)
    try:
        # What its method does not use says nothing of the model.
        unused = RunConfig.model_fields.keys() - settings_of(METHODS[config["method"]])
        read = RunConfig.read({k: v for k, v in config.items() if k not in unused})
        return _with_task(read, fields[_TASK])
    except ConfigError as error:
        raise ValueError(str(error)) from error


def _with_task(config: RunConfig, task: Mapping[str, Any]) -> RunConfig:
    """Return the configuration with the whole task of the model: what is known may have changed."""
    if task.keys() != settings_for(config.task).keys():
        raise ValueError("it does not say which diagnoses it tells apart")
    described = RunConfig.read({**task})
    if described.task == config.task:
        return config
    return config.model_copy(update=settings_for(described.task))


def _read_sites(names: object) -> list[str]:
    if not (isinstance(names, list) and all(isinstance(n, str) and is_site_name(n) for n in names)):
        raise ValueError("its sites have no names that sites may have")
    if len(set(names)) != len(names):
        raise ValueError("it names a site twice")
    return names


def _find_weights(
    path: Path, backbone: str, digest: object, named: Sequence[Path | None]
) -> Path | None:
    if not (isinstance(digest, str) and re.fullmatch("[0-9a-f]{64}", digest)):
        raise ValueError("it does not say which pretrained weights it rests on")
    try:
        return find_weights(backbone, digest, named)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _check_shapes(
    stored: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]]
) -> None:
    for name in sorted(stored.keys() | expected.keys()):
        if name not in expected:
            raise ValueError(f"array '{name}' is unknown")
        if name not in stored:
            raise ValueError(f"array '{name}' is missing")
        if stored[name] != expected[name]:
            shapes = f"{list(stored[name])}, expected {list(expected[name])}"
            raise ValueError(f"array '{name}' has the shape {shapes}")


def _check_finite(arrays: Mapping[str, Array]) -> None:
    for name, array in sorted(arrays.items()):
        if not (np.abs(array) <= LARGEST).all():
            raise ValueError(f"array '{name}' has values that are no finite numbers")
