"""Principal components of generated pictures: what the dimensions of private records are.

Pictures that :mod:`simulations.data.synthetic` generates show no patient, so the directions in
which their features vary cost no privacy. Real lesions vary in much the same ones, and a projection
to few of them keeps more of a lesion than one drawn at random. The file beside this module is
written by :mod:`simulations.data.public_components`.
"""

import base64
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Self

import numpy as np

from common.arrays import Floats
from common.features.extract import FeatureSpec

FILE = Path(__file__).with_suffix(".json")

_NETWORK = (FeatureSpec.backbone, FeatureSpec.weights, FeatureSpec.levels)
"""Whose features the file is of, for views of any size."""

_POWER = 0.25
_SHRINKAGE = 0.1


@dataclass(frozen=True, eq=False)
class PublicComponents:
    """Components of a network's features; compared by identity, so that maps of them are kept.

    Attributes
    ----------
    mean : (n_features,), over all generated views.
    matrix : (n_features, k), the components by falling variance, each scaled by it.
    """

    mean: Floats
    matrix: Floats

    @classmethod
    def of(cls, spec: FeatureSpec, n_features: int) -> Self | None:
        """Return those of a network, whatever its views; None where nobody has computed them.

        Parameters
        ----------
        n_features : how many features the network gives.
        """
        network = (spec.backbone, spec.weights, spec.levels)
        components = cls.read() if network == _NETWORK else None
        return components if components and len(components.mean) == n_features else None

    @classmethod
    def compute(cls, views: Floats, size: int) -> Self:
        """Compute ``size`` components of images' views (n, K, n_features).

        Directions of large variance hold what tells lesions apart, and most of the noise's share
        of a record. So variances are evened out a little: divided by their power 1/4, after a
        tenth of their mean is mixed in.
        """
        mean = views.mean(axis=(0, 1))
        centred = views.mean(axis=1) - mean
        variances, axes = np.linalg.eigh(centred.T @ centred / len(centred))
        mixed = (1 - _SHRINKAGE) * variances + _SHRINKAGE * variances.mean()
        kept = slice(None, -size - 1, -1)
        return cls(mean, axes[:, kept] * mixed[kept] ** (-_POWER / 2))

    def write(self, file: Path = FILE) -> None:
        """Write them, each component rounded to 8 bits of its largest number."""
        scale = np.abs(self.matrix).max(axis=0) / 127
        rounded = np.rint(self.matrix / scale).astype(np.int8)
        arrays = {
            "mean": self.mean.astype("<f4"),
            "scale": scale.astype("<f4"),
            "matrix": rounded,
        }
        text = {name: base64.b64encode(a.tobytes()).decode() for name, a in arrays.items()}
        file.write_text(json.dumps(text, indent=1) + "\n", encoding="utf-8")

    @classmethod
    @cache
    def read(cls, file: Path = FILE) -> Self:
        """Read what :meth:`write` wrote."""
        text = json.loads(file.read_text(encoding="utf-8"))
        mean, scale, matrix = (
            np.frombuffer(base64.b64decode(text[name]), kind).astype(np.float64)
            for name, kind in (("mean", "<f4"), ("scale", "<f4"), ("matrix", np.int8))
        )
        return cls(mean, matrix.reshape(len(mean), len(scale)) * scale)
