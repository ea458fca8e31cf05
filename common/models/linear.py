"""The classifier of the SVM: linear, on mapped features."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from common.answers.basis import AnswerBasis
from common.arrays import Floats, Floats32
from common.config.run import RunConfig
from common.data.dataset import Dataset
from common.data.metadata import UNKNOWN, Described, as_unknown, beside, encode, width
from common.errors import DataError
from common.explanations.evidence import PooledHead, linear_head
from common.features.extract import extract
from common.models.file import ModelFile, check_answers, open_model
from common.networks.spatial_maps import pooled
from common.storage.verified import Kind
from common.svm.feature_map import FeatureMap
from common.svm.objective import with_intercept
from common.task import Task

_LARGEST_MAP = 2**27
"""Numbers that a Fourier map draws, at most: those of the largest that can be configured."""


@dataclass(frozen=True)
class LinearModel:
    """A linear classifier on mapped features.

    Attributes
    ----------
    feature_map : the map from raw features to the classifier's.
    weights : (n_classes, n_outputs + 1), the intercepts last.
    basis : what makes probabilities and decisions of the scores, and the calibration lesions.
    config : the run that trained it; says how to compute raw features.
    """

    feature_map: FeatureMap
    weights: Floats
    basis: AnswerBasis
    config: RunConfig

    @property
    def task(self) -> Task:
        """The diagnoses that it tells apart."""
        return self.basis.task

    def scores(self, views: Floats32, rows: Sequence[Described] = ()) -> Floats:
        """Return decision values (n, n_classes), averaged over the views (n, P, n_features).

        Parameters
        ----------
        rows : what is known of the n patients, nothing if empty; a model without metadata ignores
            it.

        Raises
        ------
        DataError
            If its network gives other features than it maps, or the values are no numbers.
        """
        columns = self.config.metadata
        n_features = len(self.feature_map.mean) - width(columns)
        if views.shape[2] != n_features:
            raise DataError(
                f"the model maps {n_features} features, its network gives {views.shape[2]}; it "
                "does not fit its own settings, train it again"
            )
        with np.errstate(over="ignore", invalid="ignore"):
            full = beside(views, self.numbers(rows or [UNKNOWN] * len(views)))
            values = decision_values(average_views(self.feature_map, full), self.weights)
        return check_answers(values)

    def numbers(self, rows: Sequence[Described]) -> Floats32:
        """Return the metadata of n rows as the model takes them, (n, width)."""
        columns = self.config.metadata
        return seen_numbers(self.feature_map, columns, encode(columns, rows))

    def dataset_scores(self, dataset: Dataset, cache: Path) -> Floats:
        """Return decision values (n, n_classes) of a dataset's images.

        Parameters
        ----------
        cache : folder of the features; those that it lacks are computed into it.

        Raises
        ------
        DataError
            If an image cannot be read, ``cache`` cannot be written, or the model gives no numbers.
        """
        features = extract(dataset, self.config.feature_spec, cache.expanduser(), progress=True)
        return self.scores(features.predict, dataset.images)

    trained = None
    """Its network is as pretrained."""

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
        return np.asarray(self.scores(pooled(maps)[None], [about])[0])

    def head(self, about: Described = UNKNOWN) -> PooledHead:
        """Return the classifier in terms of pooled maps.

        Parameters
        ----------
        about : what is known of the patient, which adds to the scores from no place of the image.

        Raises
        ------
        ConfigError
            If its feature map is not linear.
        """
        return linear_head(self.feature_map, self.weights, self.numbers([about])[0])

    def save(self, path: Path) -> None:
        """Write the model as one safetensors file."""
        ModelFile(self.to_record(), self.basis, self.config).write(path)

    def to_record(self) -> dict[str, Floats]:
        """Return the arrays by name, of the shapes that its classes document."""
        return {**self.feature_map.to_record(), "weights": self.weights}

    @classmethod
    def load(cls, path: Path, *weights: Path | None) -> Self:
        """Read a model; parameters and errors are those of ``load_model``."""
        with open_model(path, cls, weights) as stored:
            arrays, basis = stored.read(_expected(stored.kinds, stored.config.task.n_classes))
            beside = width(stored.config.metadata)
            check_map(arrays, beside)
        feature_map = FeatureMap.from_record(arrays, beside)
        return cls(feature_map, arrays["weights"], basis, stored.config)


def _expected(kinds: Mapping[str, Kind], n_classes: int) -> dict[str, Kind]:
    """Return what a file's arrays must be for its own numbers of features and outputs."""
    if missing := sorted({"matrix", "fourier", "weights"} - kinds.keys()):
        raise ValueError(f"array '{missing[0]}' is missing")
    n_features, n_components = kinds["matrix"].shape
    fourier, outputs = kinds["fourier"].shape, kinds["weights"].shape[1]
    if fourier != (0,) and n_components * outputs > _LARGEST_MAP:
        raise ValueError(f"its Fourier map of {n_components} by {outputs - 1} is too large")
    shapes: dict[str, tuple[int, ...]] = {
        "mean": (n_features,),
        "matrix": (n_features, n_components),
        "fourier": (3,) if fourier != (0,) else (0,),
        "unit": (),
        "clip": (),
        "powers": (n_features,),
        "weights": (n_classes, outputs if fourier != (0,) else n_components + 1),
    }
    return {name: Kind("F64", shape) for name, shape in shapes.items()}


def seen_numbers(feature_map: FeatureMap, columns: Sequence[str], numbers: Floats32) -> Floats32:
    """Return the metadata (n, width) with what the training never saw counted as unknown.

    Parameters
    ----------
    feature_map : has the training's mean of the numbers after that of the features.
    numbers : (n, width), each column's adding to 1.
    """
    mean = feature_map.mean[len(feature_map.mean) - width(columns) :]
    return as_unknown(columns, numbers, mean > 0)


def check_map(arrays: Mapping[str, Floats], beside: int = 0) -> None:
    """Refuse arrays that make no linear model together.

    Parameters
    ----------
    arrays : by name, those of a feature map, with ``matrix`` (n_features, n_components), and
        ``weights`` (n_classes, n_outputs + 1).
    beside : how many of the last features, and of the components, are not the image's.

    Raises
    ------
    ValueError
        If sizes do not fit, or a number is one that no map has.
    """
    columns, n_components = arrays["weights"].shape[1], arrays["matrix"].shape[1]
    if arrays["fourier"].shape not in ((0,), (3,)):
        raise ValueError(f"its Fourier map has {len(arrays['fourier'])} numbers, not 3")
    if not len(arrays["fourier"]) and columns != n_components + 1:
        raise ValueError(f"it maps to {n_components} components and weighs {columns - 1}")
    if len(arrays["fourier"]) and n_components * columns > _LARGEST_MAP:
        raise ValueError(f"its Fourier map of {n_components} by {columns - 1} is too large")
    if beside >= min(arrays["matrix"].shape):
        raise ValueError(f"it has no features beside the {beside} numbers of metadata")
    if not 0 <= arrays["unit"] <= 1 or arrays["clip"] < 0:
        raise ValueError("its features have no norm that 'unit' and 'clip' can mean")
    if not ((arrays["powers"] > 0) & (arrays["powers"] <= 1)).all():
        raise ValueError("its features are raised to powers that are not above 0, at most 1")
    if len(arrays["fourier"]):
        size, width, seed = arrays["fourier"].tolist()
        if size + 1 != arrays["weights"].shape[1] or width <= 0 or not 0 <= seed == int(seed):
            raise ValueError(
                f"its Fourier map has the size {size:g}, width {width:g}, seed {seed:g}"
            )


def average_views(feature_map: FeatureMap, views: NDArray[np.floating]) -> Floats:
    """Return the mapped features (n, n_outputs), averaged over the views (n, P, n_features).

    Decision values are linear in mapped features, so this averages them too.
    """
    n, P, n_features = views.shape
    mapped = feature_map.apply(views.reshape(n * P, n_features))
    return np.asarray(mapped.reshape(n, P, mapped.shape[1]).mean(axis=1))


def decision_values(Z: Floats, weights: Floats) -> Floats:
    """Return decision values (n, n_classes) of mapped features.

    Parameters
    ----------
    Z : (n, n_outputs) mapped features.
    weights : (n_classes, n_outputs + 1), the intercepts last.
    """
    return with_intercept(Z) @ weights.T
