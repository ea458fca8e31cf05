"""From raw features to the SVM's: roots, standardised, principal components, approximate RBF."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from common.arrays import Floats
from common.config.run import RunConfig
from common.data.metadata import width
from common.features.pretrained import final_pools
from common.statistics.moments import Moments, standard_deviation


@dataclass(frozen=True)
class FourierMap:
    """Random Fourier features of the kernel ``exp(-|x - y|^2 / (2 width^2))``.

    Rahimi and Recht, "Random features for large-scale kernel machines", NIPS 2007,
    algorithm 1, times the square root of ``size / 2`` so that a feature varies about as
    much as a standardised one and C keeps its scale. Drawn from a public seed, so every
    site has the same map and no record is a landmark.
    """

    size: int
    width: float
    seed: int

    def apply(self, Z: Floats) -> Floats:
        """Map ``Z`` (n, n_components) to (n, size), values in [-sqrt(2), sqrt(2)]."""
        frequencies, phases = self.drawn(Z.shape[1])
        return np.asarray(np.sqrt(2.0) * np.cos(Z @ frequencies + phases))

    def drawn(self, n_components: int) -> tuple[Floats, Floats]:
        """Return the frequencies (n_components, size) and the phases (size,)."""
        rng = np.random.default_rng([self.seed, self.size])
        frequencies = rng.standard_normal((n_components, self.size)) / self.width
        return frequencies, rng.uniform(0.0, 2.0 * np.pi, self.size)


@dataclass(frozen=True)
class FeatureMap:
    """``z = (raised(x) - mean) @ matrix``, clipped, then the Fourier map if there is one.

    Attributes
    ----------
    mean : (n_features,) of the raised features.
    matrix : (n_features, n_components).
    unit : norm that the result is scaled to, before the Fourier map; 0: it is not scaled.
    clip : largest norm of what is not scaled so; longer ones are shortened to it. 0 for any.
    beside : how many of the last features, and of the outputs, `unit` leaves as they are.
    powers : (n_features,) exponents of the features' sizes, in (0, 1], as of :func:`raised`; None
        for 1.
    """

    mean: Floats
    matrix: Floats
    fourier: FourierMap | None = None
    unit: float = 0.0
    clip: float = 0.0
    beside: int = 0
    powers: Floats | None = None

    @classmethod
    def principal(
        cls,
        moments: Moments,
        components: int,
        beside: int = 0,
        whitening: float = 0.0,
        powers: Floats | None = None,
    ) -> Self:
        """Standardise, then keep the leading principal components.

        Equals ``StandardScaler`` and ``PCA(components)`` of scikit-learn up to the signs
        of the components, which no later step depends on. Fewer are returned where there
        are fewer features.

        Parameters
        ----------
        moments : of the raised features.
        beside : how many of the last features are no part of this and follow the components as
            they are, but for their mean.
        whitening : 0 leaves the components their variances; else :func:`evened` says what is done.
        powers : (n_features,) exponents that the features of ``moments`` were raised by.
        """
        images = len(moments.mean) - beside
        deviation = standard_deviation(moments)[:images]
        correlation = moments.scatter()[:images, :images] / np.outer(deviation, deviation)
        variances, vectors = np.linalg.eigh(correlation)
        components = min(components, images)
        kept = vectors[:, ::-1][:, :components] / deviation[:, None]
        if whitening:
            kept = kept * evened(variances[::-1][:components], whitening)
        matrix = np.zeros((len(moments.mean), components + beside))
        matrix[:images, :components] = kept
        matrix[images:, components:] = np.eye(beside)
        return cls(moments.mean, matrix, powers=powers)

    def scaled(self, beside: int, factor: float) -> Self:
        """Return the map whose last ``beside`` outputs before a Fourier map are scaled."""
        factors = np.ones(self.matrix.shape[1])
        factors[len(factors) - beside :] = factor
        return replace(self, matrix=self.matrix * factors)

    @property
    def n_outputs(self) -> int:
        """Number of features that come out."""
        return self.fourier.size if self.fourier else self.matrix.shape[1]

    @property
    def longest(self) -> float:
        """Largest norm that comes out; 0 where there is none."""
        return float(np.sqrt(2.0 * self.fourier.size)) if self.fourier else self.clip

    @property
    def exponents(self) -> Floats:
        """What the features' sizes are raised to, (n_features,)."""
        return np.ones(len(self.mean)) if self.powers is None else self.powers

    @property
    def digest(self) -> str:
        """SHA-256 of the map, in hexadecimal."""
        arrays = self.mean, self.matrix, self.exponents
        digest = hashlib.sha256(b"".join(array.tobytes() for array in arrays))
        digest.update(repr((self.fourier, self.unit, self.clip)).encode())
        return digest.hexdigest()

    def apply(self, X: NDArray[np.floating]) -> Floats:
        """Map ``X`` (n, n_features) to (n, n_outputs)."""
        Z = clip_rows(self.project(X), self.clip) if self.clip else self.project(X)
        return self.fourier.apply(Z) if self.fourier else Z

    def project(self, X: NDArray[np.floating]) -> Floats:
        """Return ``X`` (n, n_features) in the map's directions, (n, n_components)."""
        Z: Floats = (raised(X, self.powers) - self.mean) @ self.matrix
        if self.unit:
            images = slice(Z.shape[1] - self.beside)
            Z[:, images] = self.unit * unit_rows(Z[:, images])
        return Z

    @property
    def of_images(self) -> Self:
        """The map of the features that have none beside them, to their own outputs."""
        features, outputs = (size - self.beside for size in self.matrix.shape)
        return self.first(features, outputs)

    def first(self, features: int, outputs: int) -> Self:
        """Return the map of the first features to the first outputs before a Fourier map."""
        return replace(
            self,
            mean=self.mean[:features],
            matrix=self.matrix[:features, :outputs],
            powers=self.exponents[:features],
            beside=0,
        )

    def to_record(self) -> dict[str, Floats]:
        """Return the map as arrays.

        Returns
        -------
        "mean" (n_features,), "matrix" (n_features, n_components), "fourier" (3,) with size, width
        and seed or (0,) without that map, "unit" (), "clip" () and "powers"
        (n_features,).
        """
        fourier = self.fourier
        return {
            "mean": self.mean,
            "matrix": self.matrix,
            "fourier": np.array([fourier.size, fourier.width, fourier.seed] if fourier else []),
            "unit": np.array(self.unit),
            "clip": np.array(self.clip),
            "powers": self.exponents,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, NDArray[np.generic]], beside: int = 0) -> Self:
        """Return the map of a ``record`` with names and shapes as in `to_record`; ignore others.

        Parameters
        ----------
        beside : how many of the last features are not the image's.
        """
        fourier = record["fourier"].tolist()
        return cls(
            np.asarray(record["mean"], dtype=np.float64),
            np.asarray(record["matrix"], dtype=np.float64),
            FourierMap(int(fourier[0]), fourier[1], int(fourier[2])) if fourier else None,
            float(np.asarray(record["unit"], dtype=np.float64)),
            float(np.asarray(record["clip"], dtype=np.float64)),
            beside,
            np.asarray(record["powers"], dtype=np.float64),
        )


def evened(variances: Floats, shrinkage: float) -> Floats:
    """Return factors (n_components,) that make components more alike in variance.

    One over the root of the variance plus ``shrinkage`` times the mean variance: the smaller it is,
    the more even. The sum of the variances stays what it is, and so C keeps its scale.

    Parameters
    ----------
    variances : (n_components,) of the components, at least 0 but for rounding.
    shrinkage : above 0.
    """
    variances = np.maximum(variances, 0.0)
    if not variances.any():  # of a single record
        return np.ones_like(variances)
    factors = 1.0 / np.sqrt(variances + shrinkage * variances.mean())
    factors *= np.sqrt(variances.sum() / (variances * factors**2).sum())
    return np.asarray(factors)


def raised(X: NDArray[np.floating], powers: Floats | None) -> Floats:
    """Return ``X`` (n, n_features) with sizes raised to powers and signs kept, same shape.

    Pooled activations are skewed: most are small, a few images have large ones. Their roots are
    more alike, which suits a linear classifier: Perronnin, Sanchez and Mensink, "Improving the
    Fisher kernel for large-scale image classification", ECCV 2010, section 3.2.

    Parameters
    ----------
    powers : (n_features,) in (0, 1]; None for 1.
    """
    exact = X.astype(np.float64)
    if powers is not None:
        own = powers != 1
        exact[:, own] = np.copysign(np.abs(exact[:, own]) ** powers[own], exact[:, own])
    return exact


def powers_of(config: RunConfig, n_features: int) -> Floats:
    """Return the exponents (n_features,) of a run's features, those of metadata included.

    The setting is for the pools of the network's final map, which no activation makes negative; of
    earlier maps, of either sign, roots gain nothing (docs/frozen-features.md).
    """
    end = n_features - width(config.metadata)
    powers = np.ones(n_features)
    powers[max(end - final_pools(config.backbone), 0) : end] = config.power
    return powers


def unit_rows(X: Floats) -> Floats:
    """Return ``X`` (n, n_features) with rows scaled to a norm of 1, same shape; zeros stay."""
    norms = np.linalg.norm(X, axis=1, keepdims=True)
    return np.asarray(X / np.maximum(norms, np.finfo(np.float64).tiny))


def clip_rows(X: Floats, norm: float) -> Floats:
    """Return ``X`` (n, n_features) with rows shortened to ``norm`` at most, same shape."""
    norms = np.linalg.norm(X, axis=1, keepdims=True)
    return np.asarray(X * (norm / np.maximum(norms, norm)))
