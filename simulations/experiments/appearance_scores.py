"""Ways to score how unlike lesions an image is, to compare them with the one that is built in."""

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np

from common.answers.appearance import Appearance
from common.arrays import Bools, Floats, Ints
from common.statistics.moments import Moments, lda

Statistics = Mapping[str, Floats]
"""Of n images by name, (n, channels): means and standard deviations of the maps of each level."""

Score = Callable[[Statistics, Bools, Ints], Floats]
"""Maps statistics, which images train (n,) and labels (n,) to distances (n,) of all images."""

_LEAST_DEVIATION = 1e-3
_PROTOTYPES = 32
_ROUNDS = 20


def mahalanobis(X: Floats, train: Bools) -> Floats:
    """Return the distance (n,) of rows ``X`` (n, D) from those that ``train`` (n,)."""
    return _appearance(X[train]).distance(X)


def _appearance(X: Floats) -> Appearance:
    return Appearance.fit(Moments.measure(X, np.zeros(len(X), dtype=np.int64), np.ones(len(X)), 1))


def _built_in(features: Statistics, train: Bools, _: Ints) -> Floats:
    return mahalanobis(np.hstack([features["mean 3"], _logarithm(features, 4)]), train)


def _level(level: int, features: Statistics, train: Bools, _: Ints) -> Floats:
    both = np.hstack([features[f"mean {level}"], _logarithm(features, level)])
    return mahalanobis(both, train)


def _means(name: str, features: Statistics, train: Bools, _: Ints) -> Floats:
    return mahalanobis(features[name], train)


def _logarithm(features: Statistics, level: int) -> Floats:
    return np.asarray(np.log(features[f"deviation {level}"] + _LEAST_DEVIATION))


def _by_class(features: Statistics, train: Bools, labels: Ints) -> Floats:
    """Distance from the nearest class mean, with the covariance that all classes share."""
    X = features["mean"]
    y = labels[train]
    means = np.stack([X[train][y == k].mean(axis=0) for k in np.unique(y)])
    within = _appearance(X[train] - means[np.searchsorted(np.unique(y), y)])
    return np.asarray(np.min([within.distance(X - mean) for mean in means], axis=0))


def _relative(features: Statistics, train: Bools, labels: Ints) -> Floats:
    """Ren et al., 2021, arXiv 2106.09022: squared, less the distance from all lesions, squared."""
    return _by_class(features, train, labels) ** 2 - mahalanobis(features["mean"], train) ** 2


def _energy(features: Statistics, train: Bools, labels: Ints) -> Floats:
    """Liu et al., NeurIPS 2020, equation 4: of a linear discriminant's scores."""
    X = features["mean"]
    ones, n_classes = np.ones(int(train.sum())), int(labels.max()) + 1
    moments = Moments.measure(X[train], labels[train], ones, n_classes)
    coefficients, intercepts = lda(moments)
    scores = X @ coefficients.T + intercepts
    most = scores.max(axis=1)
    return np.asarray(-most - np.log(np.exp(scores - most[:, None]).sum(axis=1)))


def _prototypes(features: Statistics, train: Bools, _: Ints) -> Floats:
    """Distance from the nearest of some cluster means, which are made of added sums."""
    X = np.hstack([features["mean 3"], _logarithm(features, 4)])
    whitening = _appearance(X[train])
    Z = (X - whitening.mean) @ whitening.whitening
    centres = Z[train][:: max(1, int(train.sum()) // _PROTOTYPES)][:_PROTOTYPES]
    for _round in range(_ROUNDS):
        nearest = _squares(Z[train], centres).argmin(axis=1)
        sums = np.stack([Z[train][nearest == k].sum(axis=0) for k in range(len(centres))])
        counts = np.bincount(nearest, minlength=len(centres))[:, None]
        centres = np.where(counts > 0, sums / np.maximum(counts, 1), centres)
    return np.asarray(np.sqrt(_squares(Z, centres).min(axis=1) / Z.shape[1]))


def _squares(Z: Floats, centres: Floats) -> Floats:
    products = Z @ centres.T
    squares = (Z**2).sum(axis=1)[:, None] - 2 * products + (centres**2).sum(axis=1)
    return np.asarray(np.maximum(squares, 0.0))


SCORES: Mapping[str, Score] = {
    "appearance": _built_in,
    **{f"means of level {level}": partial(_means, f"mean {level}") for level in range(1, 6)},
    **{f"means and deviations, level {level}": partial(_level, level) for level in range(1, 6)},
    "final features": partial(_means, "mean"),
    "final features, nearest class": _by_class,
    "final features, relative": _relative,
    "energy of a linear classifier": _energy,
    f"appearance, nearest of {_PROTOTYPES} prototypes": _prototypes,
}
"""Each by its name; the first is built in. Level 3 has a stride of 8 pixels, level 4 of 16."""
