"""Linear discriminant analysis from moments that sites send once, with noise.

One noisy sum, not many: it gets all of the budget.
"""

import math

import numpy as np

from common.arrays import Floats
from common.privacy.linear import CLASS_SUMS, Centre, Units

_LEAST_VARIANCE = 1e-4


def moments(units: Units, centre: Centre, n_classes: int) -> Floats:
    """Return class sums and second moments of centred records, (moments_size,).

    Elements off the diagonal stand for two each and are multiplied by sqrt(2), so that the norm of
    a record's second moments is that of the matrix.
    """
    X = shortened(units.X, centre)
    weighted = X * units.share[:, None]
    sums = np.zeros((n_classes, X.shape[1]))
    np.add.at(sums, units.y, weighted)
    second = weighted.T @ X
    above = second[np.triu_indices(len(second), 1)]
    return np.concatenate([CLASS_SUMS * sums.ravel(), np.diagonal(second), math.sqrt(2) * above])


def shortened(X: Floats, centre: Centre) -> Floats:
    """Return ``X`` (n, d) centred, with the records beyond norm 1 shortened to it, (n, d)."""
    X = (X - centre.mean) * centre.scale
    return np.asarray(X / np.maximum(np.linalg.norm(X, axis=1, keepdims=True), 1.0))


def unpacked(values: Floats, n_classes: int) -> tuple[Floats, Floats]:
    """Return class sums (n_classes, d) and second moments (d, d) in ``values`` (moments_size,)."""
    b = 2 * n_classes + 1
    d = (math.isqrt(b * b + 8 * len(values)) - b) // 2  # inverts moments_size
    sums, second = values[: n_classes * d], values[n_classes * d :]
    above = np.zeros((d, d))
    above[np.triu_indices(d, 1)] = second[d:] / math.sqrt(2)
    return sums.reshape(n_classes, d) / CLASS_SUMS, above + above.T + np.diag(second[:d])


def moments_size(dimensions: int, n_classes: int) -> int:
    """Return how many numbers the moments are."""
    return n_classes * dimensions + dimensions * (dimensions + 1) // 2


def discriminant(values: Floats, counts: Floats) -> Floats:
    """Return the weights (n_classes, d + 1) of discriminants for classes equally frequent.

    Without noise the scatter has no negative eigenvalue, so the most negative one measures the
    noise. It is added to all eigenvalues (ridge), and class means are shrunk to the common mean in
    proportion to it (James and Stein, "Estimation with quadratic loss", 1961).

    Parameters
    ----------
    values : (moments_size,) noisy :func:`moments` of all units.
    counts : (n_classes,) noisy numbers of units, at least 1.

    References
    ----------
    Hastie, Tibshirani and Friedman, "The elements of statistical learning", 2009, equation 4.10;
    the scatter is that about the common mean, not within the classes.
    """
    sums, second = unpacked(values, len(counts))
    total, d = counts.sum(), len(second)
    mean = sums.sum(axis=0) / total
    scatter = second / total - np.outer(mean, mean)
    variances, axes = np.linalg.eigh(scatter)
    noise = max(-float(variances[0]), 0.0)
    inverse = (axes / (np.maximum(variances, 0.0) + noise + _LEAST_VARIANCE)) @ axes.T
    # A symmetric matrix of such noise has eigenvalues down to -sqrt(2 d) standard deviations.
    deviation = noise * total / math.sqrt(2 * d) / CLASS_SUMS
    apart = _pulled(sums / counts[:, None] - mean, d * (deviation / counts) ** 2)
    slopes = apart @ inverse
    intercepts = -slopes @ mean - 0.5 * np.einsum("ij,ij->i", slopes, apart)
    return np.hstack([slopes, intercepts[:, None]])


def _pulled(vectors: Floats, noise: Floats) -> Floats:
    """Shorten vectors (n, d) by what ``noise`` (n,) adds to their squared norms."""
    squares = np.einsum("ij,ij->i", vectors, vectors)
    left = np.maximum(squares - noise, 0.0) / np.maximum(squares, np.finfo(float).tiny)
    return np.asarray(vectors * left[:, None])
