"""The classifier that the SVM gives: linear, on mapped features."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from common.calibration import probabilities
from common.config import RunConfig
from common.dataset import Dataset
from common.feature_map import FeatureMap
from common.features import extract, extract_images
from common.model_file import (
    ModelFile,
    Prediction,
    check_arrays,
    read_model_file,
    refuse_foreign,
)
from common.svm import with_intercept

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class LinearModel:
    """A linear classifier on mapped features.

    Attributes
    ----------
    feature_map : from raw features to the classifier's.
    variance : (n_components,) variances of the training views' components, infinite for those to
        be left out of distances.
    weights : (n_classes, n_outputs + 1), the intercepts last.
    calibration : (2, n_classes) scales and biases of the probabilities.
    classes : names of the classes.
    config : the run that trained it; says how to compute raw features.
    """

    feature_map: FeatureMap
    variance: Floats
    weights: Floats
    calibration: Floats
    classes: Sequence[str]
    config: RunConfig

    def scores(self, views: NDArray[np.floating]) -> Floats:
        """Return decision values (n, n_classes), averaged over the views (n, P, n_features)."""
        return decision_values(average_views(self.feature_map, views), self.weights)

    def dataset_scores(self, dataset: Dataset, cache: Path) -> Floats:
        """Return decision values (n, n_classes) of a dataset's images.

        Parameters
        ----------
        cache : folder of the features; those that it lacks are computed into it.

        Raises
        ------
        DataError
            If an image cannot be read or ``cache`` cannot be written.
        """
        found = extract(dataset, self.config.feature_spec, cache.expanduser(), progress=True)
        return self.scores(found.predict)

    def predict(self, images: Mapping[str, bytes]) -> Prediction:
        """Give JPEG or PNG files' bytes by name the classes of the largest decision value.

        Raises
        ------
        DataError
            If an image cannot be decoded, with its name.
        """
        views = extract_images(images, self.config.feature_spec)
        values = self.scores(views)
        chances = probabilities(values, self.calibration)
        return Prediction(self.decide(values), chances, self.distance(views))

    def decide(self, scores: Floats) -> NDArray[np.int64]:
        """Return the classes (n,) of the largest decision values (n, n_classes)."""
        return np.asarray(scores.argmax(axis=1))

    def distance(self, views: NDArray[np.floating]) -> Floats | None:
        """Return how far images lie from the training images, (n,); about 1 is usual.

        The Mahalanobis distance from the mean of all training views, as the root mean square
        over the views (n, P, n_features) and the components that vary; None where none is known
        to.
        """
        if not np.isfinite(self.variance).any():
            return None
        n, P, n_features = views.shape
        Z = self.feature_map.project(views.reshape(n * P, n_features))
        squares = (Z**2 / self.variance).reshape(n, -1).sum(axis=1)
        return np.asarray(np.sqrt(squares / (P * np.isfinite(self.variance).sum())))

    def save(self, path: Path) -> None:
        """Write the model as one safetensors file."""
        arrays = {
            **self.feature_map.to_record(),
            "variance": self.variance,
            "weights": self.weights,
            "calibration": self.calibration,
        }
        ModelFile(arrays, self.classes, self.config).write(path)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a model.

        Raises
        ------
        DataError
            If the file is not there or not such a model.
        """
        arrays, classes, config = read_model_file(path, ["svm", "private"])
        with refuse_foreign(path):
            feature_map = FeatureMap.from_record(arrays)
            n_features, n_components = feature_map.matrix.shape
            expected = {
                "mean": (n_features,),
                "matrix": (n_features, n_components),
                "fourier": (3,) if feature_map.fourier else (0,),
                "unit": (),
                "clip": (),
                "variance": (n_components,),
                "weights": (len(classes), feature_map.n_outputs + 1),
                "calibration": (2, len(classes)),
            }
            check_arrays(arrays, expected)
        variance, weights, calibration = (
            np.asarray(arrays[name]) for name in ("variance", "weights", "calibration")
        )
        return cls(feature_map, variance, weights, calibration, classes, config)


def average_views(feature_map: FeatureMap, views: NDArray[np.floating]) -> Floats:
    """Return the mapped features (n, n_outputs), averaged over the views (n, P, n_features).

    Decision values are linear in mapped features, so this averages them too.
    """
    n, P, n_features = views.shape
    mapped = feature_map.apply(views.reshape(n * P, n_features))
    return np.asarray(mapped.reshape(n, P, mapped.shape[1]).mean(axis=1))


def decision_values(Z: Floats, weights: Floats) -> Floats:
    """Return decision values (n, n_classes) of mapped features ``Z`` (n, n_outputs)."""
    return with_intercept(Z) @ weights.T
