"""Weights of images: resamples of lesions, and one mix of diagnoses for two groups."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from common.arrays import Bools, Floats, Ints


def lesion_weights(
    labels: Ints, lesions: NDArray[np.str_], seed: int | Sequence[int], repeats: int
) -> Floats:
    """Return weights of images: as they are, then of resamples; images of a lesion share its own.

    The Bayesian bootstrap: lesions get random weights that sum, within each class, to their number.
    None gets zero, so that a class that a small group has is never lost, as it is where lesions are
    drawn with replacement.

    Parameters
    ----------
    labels, lesions : (n,) class of each image, and the lesion that it shows.
    seed, repeats : seed and number of the resamples.

    Returns
    -------
    (1 + repeats, n) positive.

    References
    ----------
    Rubin (1981), "The Bayesian bootstrap", Annals of Statistics 9(1).
    """
    _, first, lesion, sizes = np.unique(
        lesions, return_index=True, return_inverse=True, return_counts=True
    )
    own = labels[first]
    drawn = np.random.default_rng(seed).standard_exponential((repeats, len(own)))
    for c in np.unique(own):
        members = own == c
        drawn[:, members] *= members.sum() / drawn[:, members].sum(axis=1, keepdims=True)
    return np.vstack([np.ones(len(own)), drawn])[:, lesion] / sizes[lesion]


def standardised(labels: Ints, weights: Floats, mix: Floats) -> Floats:
    """Return weights by which each class has its share in a mix of diagnoses.

    Parameters
    ----------
    labels : (n,) class of each image.
    weights : (repeats, n) positive.
    mix : (n_classes,) shares of the classes; those that are absent here are to have none.

    Returns
    -------
    (repeats, n); rows sum to the sum of ``mix``.

    References
    ----------
    Rothman, Greenland and Lash (2008), "Modern epidemiology", chapter 15 (direct standardisation).
    """
    own = np.eye(len(mix))[labels]
    totals = weights @ own
    factors = np.divide(mix, totals, out=np.zeros_like(totals), where=totals > 0)
    return np.asarray(weights * factors[:, labels])


def common_mix(labels: Ints, weights: Floats, group: Bools, rest: Bools, n_classes: int) -> Floats:
    """Return the mix of diagnoses of all lesions, over those that group and rest both have.

    Parameters
    ----------
    labels, weights : (n,) class and weight of each image.
    group, rest : (n,) whether an image is of it.

    Returns
    -------
    (n_classes,) shares that sum to 1, or zeros where they have none in common.
    """
    all_of_them = np.bincount(labels, weights, n_classes)
    both = np.isin(np.arange(n_classes), np.intersect1d(labels[group], labels[rest]))
    mix = np.where(both, all_of_them, 0.0)
    return np.asarray(mix / mix.sum() if mix.any() else mix)
