"""The classifier that the SVM gives: linear, on mapped features."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from common.calibration import probabilities
from common.config import RunConfig
from common.errors import DataError
from common.feature_map import FeatureMap
from common.model_file import ModelFile, read_model_file
from common.svm import with_intercept

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class LinearModel:
    """A linear classifier on mapped features.

    Attributes
    ----------
    feature_map : from raw features to the classifier's.
    variance : (n_components,) variances of the training views' principal components,
        infinite for those to be left out of distances.
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

    def predict(self, views: NDArray[np.floating]) -> tuple[NDArray[np.int64], Floats]:
        """Return classes (n,), those of the largest decision value, and probabilities."""
        values = self.scores(views)
        return values.argmax(axis=1), probabilities(values, self.calibration)

    def distance(self, views: NDArray[np.floating]) -> Floats:
        """Return how far images lie from the training images, (n,); about 1 is usual.

        The Mahalanobis distance from the mean of all training views, as the root mean square
        over the views (n, P, n_features) and the components that vary.
        """
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
        arrays, classes, config = read_model_file(path, "svm")
        try:
            return cls(
                FeatureMap.from_record(arrays),
                np.asarray(arrays["variance"]),
                np.asarray(arrays["weights"]),
                np.asarray(arrays["calibration"]),
                classes,
                config,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path} is no FedDerm model ({error}); name a run's model") from error


def average_views(feature_map: FeatureMap, views: NDArray[np.floating]) -> Floats:
    """Return the mapped features (n, n_outputs), averaged over the views (n, P, n_features).

    Decision values are linear in mapped features, so this averages them too.
    """
    n, P, n_features = views.shape
    mapped = feature_map.apply(views.reshape(n * P, n_features))
    return np.asarray(mapped.reshape(n, P, -1).mean(axis=1))


def decision_values(Z: Floats, weights: Floats) -> Floats:
    """Return decision values (n, n_classes) of mapped features ``Z`` (n, n_outputs)."""
    return with_intercept(Z) @ weights.T
