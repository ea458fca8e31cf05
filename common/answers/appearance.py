"""Whether an image looks like the lesions that a model was trained on, or like something else.

A picture of anything gets a diagnosis, because a classifier has no class for what is no lesion. So
each image gets a distance from the training lesions, and a threshold that few lesions exceed. Both
come from sums over lesions: first and second moments, then a histogram of distances.

The distance is Mahalanobis' [1]_ of two kinds of statistics of a network's maps. The early levels
of a network know colours and textures, which tell other pictures from lesions better than its last
features do: those keep what tells diagnoses apart.

References
----------
.. [1] Lee, Lee, Lee, Shin, "A Simple Unified Framework for Detecting Out-of-Distribution Samples
   and Adversarial Attacks", NeurIPS 2018, section 2.1; here without classes.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from common.arrays import Floats, Floats32, Ints
from common.statistics.moments import Moments, standard_deviation
from common.statistics.sums import Sums

SHARE = 0.05
"""Share of new lesions whose distance is above the threshold, at most."""

_LEAST_DEVIATION = 1e-3
"""Below it a map counts as flat: a picture of one colour must not give the logarithm of 0."""

_NEAREST, _RATIO, _EDGES = 0.25, 1.002, 2081
"""The lowest edge of the bins of distances, the ratio of neighbours, their number: 0.25 to 16."""

EDGES: Floats = np.geomspace(_NEAREST, _NEAREST * _RATIO ** (_EDGES - 1), _EDGES)
"""Edges of the bins of distances, (2081,); a bin holds its upper edge."""


SIZE = 152
"""Numbers that say what an image looks like: as many as the default network's maps give."""


def appearance(fine: Floats32, coarse: Floats32) -> Floats:
    """Return what an image looks like to a network, (SIZE,).

    These are the means of the fine map's channels, and the logarithms of the standard deviations
    within the coarse map's. The means say which colours and textures there are; the deviations say
    how much they vary over the image, as they do from skin to lesion.

    Parameters
    ----------
    fine : (c1, h1, w1) map of the whole image at a stride of 8 pixels.
    coarse : (c2, h2, w2) map at a stride of 16 pixels.
    """
    deviations = coarse.std(axis=(1, 2), dtype=np.float64)
    means = fine.mean(axis=(1, 2), dtype=np.float64)
    return _of_size(np.concatenate([means, np.log(deviations + _LEAST_DEVIATION)]))


def _of_size(values: Floats) -> Floats:
    """Return ``SIZE`` numbers of any: zeros appended, or by a fixed random projection.

    So what sites send has the same length whatever the network.
    """
    if len(values) <= SIZE:
        return np.pad(values, (0, SIZE - len(values)))
    rng = np.random.default_rng(len(values))
    return np.asarray(rng.standard_normal((SIZE, len(values))) @ values / np.sqrt(len(values)))


@dataclass(frozen=True)
class Appearance:
    """How lesions look, as the distance of an image from them.

    Attributes
    ----------
    mean : (D,) mean over the lesions.
    whitening : (D, D); differences from the mean, multiplied by it, have the identity as their
        covariance over the lesions.
    threshold : the distance that a stated share of new lesions exceeds; inf where too few were
        counted to tell.
    """

    mean: Floats
    whitening: Floats
    threshold: float = math.inf

    @classmethod
    def fit(cls, moments: Moments) -> Self:
        """Learn how lesions look from their moments.

        The correlations are shrunk towards none as far as the number of lesions asks for, by the
        oracle approximating shrinkage of Chen et al. [1]_. So a few lesions give a distance too,
        if a weaker one.

        Parameters
        ----------
        moments : of one class, of the ``appearance`` (n, D) of the images of at least one lesion;
            the images of a lesion share a weight of 1.

        References
        ----------
        .. [1] Chen, Wiesel, Eldar, Hero, "Shrinkage Algorithms for MMSE Covariance Estimation",
           IEEE Transactions on Signal Processing 58(10), 2010, equation 23; scikit-learn's ``OAS``.
        """
        deviation = standard_deviation(moments)
        correlation = moments.scatter() / moments.weight / np.outer(deviation, deviation)
        # What is constant has a deviation of 1 by definition; let it also have a variance of 1.
        np.fill_diagonal(correlation, 1.0)
        shrunk = _shrunk(correlation, moments.weight)
        variances, directions = np.linalg.eigh(shrunk)
        return cls(moments.mean, directions / np.sqrt(variances) / deviation[:, None])

    def distance(self, X: NDArray[np.floating]) -> Floats:
        """Return how far images lie from the lesions, (n,); about 1 is usual.

        Parameters
        ----------
        X : (n, D), the ``appearance`` of n images.
        """
        Z = (X.astype(np.float64) - self.mean) @ self.whitening
        return np.asarray(np.sqrt((Z**2).mean(axis=1)))

    def to_record(self) -> dict[str, Floats]:
        """Return the arrays by name: "mean" (D,) and "whitening" (D, D)."""
        return {"mean": self.mean, "whitening": self.whitening}


@dataclass(frozen=True)
class DistanceCounts(Sums):
    """Calibration lesions by their distance.

    Attributes
    ----------
    counts : (2082,) numbers of lesions in each bin; the first is below all edges, the last above.
    """

    nonnegative: ClassVar[tuple[str, ...]] = ("counts",)
    counted: ClassVar[str | None] = "counts"

    counts: Ints

    @classmethod
    def zero(cls) -> Self:
        """Return the counts of no lesions."""
        return cls(np.zeros(_EDGES + 1, dtype=np.int64))

    @classmethod
    def measure(cls, distances: Floats) -> Self:
        """Count ``distances`` (n,), one of each lesion, which was not among those that fitted."""
        bins = np.searchsorted(EDGES, distances, side="left")
        return cls(np.bincount(bins, minlength=_EDGES + 1))

    def threshold(self, share: float = SHARE) -> float | None:
        """Return the distance that at most a ``share`` of new lesions exceeds.

        The guarantee is that of split conformal prediction: it holds for a lesion that could as
        well have been among the counted ones, on average over the lesions that were drawn. The
        threshold is rounded up to an edge, so by at most 0.2 %. None where too few lesions are
        counted, fewer than 19 for a share of 0.05, or a distance beyond all edges is needed.
        """
        n = int(self.counts.sum())
        # (n + 1) * 0.95 may be a hair above the whole number that is meant.
        rank = math.ceil((n + 1) * (1.0 - share) - 1e-9)
        if rank > n:
            return None
        index = int(np.searchsorted(self.counts.cumsum(), max(rank, 1)))
        return float(EDGES[index]) if index < _EDGES else None


def _shrunk(correlation: Floats, n: float) -> Floats:
    """Shrink a correlation matrix (D, D) of n records towards the identity; both have trace D."""
    size = len(correlation)
    mean_square = float((correlation**2).mean())
    excess = (n + 1.0) * (mean_square - 1.0 / size)
    shrinkage = min(1.0, (mean_square + 1.0) / excess) if excess > 0 else 1.0
    return np.asarray((1.0 - shrinkage) * correlation + shrinkage * np.eye(size))
