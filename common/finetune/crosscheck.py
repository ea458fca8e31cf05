"""What sites count about each other's changes: how well each tells diagnoses apart."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from common.arrays import Floats, Ints
from common.statistics.sums import Sums

LEAST_IMAGES = 5
"""Fewest images of a class at a site that says how well it is told apart."""

MOST_IMAGES = 100
"""Most images of a class that a site looks at."""


@dataclass(frozen=True)
class PairCounts(Sums):
    """Images that each candidate tells from those of another class.

    Attributes
    ----------
    right : (n_candidates, n_classes, n_classes); at row a, column b the images of class a whose
        score of a over b is above the middle between the means of both classes. So a candidate's
        preference for frequent classes does not count, only what it tells apart. On the diagonal
        the images of the class; where they are fewer than ``LEAST_IMAGES`` row and column are 0.
    """

    nonnegative: ClassVar[tuple[str, ...]] = ("right",)

    right: Ints

    @classmethod
    def zero(cls, candidates: int, n_classes: int) -> Self:
        """Return the counts of no images."""
        return cls(np.zeros((candidates, n_classes, n_classes), dtype=np.int64))

    @classmethod
    def measure(cls, scores: Iterable[Floats], labels: Ints) -> Self:
        """Count by each candidate's ``scores`` (n, n_classes) of images with ``labels`` (n,)."""
        return cls(np.stack([_right(each, labels) for each in scores]))

    def rates(self) -> Floats:
        """Return the share of two classes that is told apart; NaN where it was not counted.

        Returns
        -------
        (n_candidates, n_classes, n_classes), symmetric, both classes counting alike.
        """
        images = np.diagonal(self.right, axis1=1, axis2=2)
        known = images > 0
        shares = self.right / np.maximum(images, 1)[:, :, None]
        pairs = known[:, :, None] & known[:, None, :] & ~np.eye(images.shape[1], dtype=np.bool_)
        return np.where(pairs, (shares + shares.transpose(0, 2, 1)) / 2, np.nan)


def chosen(labels: Ints) -> Ints:
    """Return the numbers (m,) of the images to look at, the first of each of ``labels`` (n,)."""
    by_class = [np.flatnonzero(labels == k) for k in np.unique(labels)]
    enough = [each[:MOST_IMAGES] for each in by_class if len(each) >= LEAST_IMAGES]
    return np.sort(np.concatenate([*enough, np.zeros(0, np.int64)]))


def _right(scores: Floats, labels: Ints) -> Ints:
    n_classes = scores.shape[1]
    images = np.bincount(labels, minlength=n_classes)
    of_class = np.eye(n_classes)[labels].T
    mean = (of_class @ scores) / np.maximum(images, 1)[:, None]
    own = np.diagonal(mean)
    # Half of what the mean image of a has of a over b, and half of what that of b has.
    middle = (own[:, None] - mean + mean.T - own[None, :]) / 2
    margins = scores[np.arange(len(labels)), labels][:, None] - scores
    right = of_class @ (margins > middle[labels])
    known = images >= LEAST_IMAGES
    right = np.where(known[:, None] & known[None, :], right, 0)
    np.fill_diagonal(right, np.where(known, images, 0))
    return np.asarray(right, np.int64)
