"""What a network is to say of the images that it is trained on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from common.arrays import Bools, Floats, Floats32, Ints


@dataclass(frozen=True)
class Targets:
    """The targets of a site's n training images.

    Attributes
    ----------
    labels : (n,) numbers of classes.
    weights : (n,) factors of the images' losses, beside those of their classes; None for ones.
    former : (n, n_classes) softened answers of a former model, to hold on to; None for none.
    sizes : (n,) as how many images each counts in a batch's mean; None for ones.
    """

    labels: Ints
    weights: Floats | None = None
    former: Floats32 | None = None
    sizes: Floats | None = None

    def of(self, images: Sequence[int]) -> Self:
        """Return the targets of some images, in the order of their numbers."""
        chosen = list(images)
        return type(self)(
            self.labels[chosen],
            None if self.weights is None else self.weights[chosen],
            None if self.former is None else self.former[chosen],
            None if self.sizes is None else self.sizes[chosen],
        )

    def with_pseudo(self, labels: Ints, kept: Bools, weight: float) -> Self:
        """Return the targets with those of m more images, which have pseudo-labels.

        Parameters
        ----------
        labels : (m,) numbers of classes.
        kept : (m,) whether the loss of each counts.
        weight : what each weighs beside an image with a diagnosis, whether its loss counts or not.
        """
        n, m = len(self.labels), len(labels)
        own = np.ones(n) if self.weights is None else self.weights
        former = self.former
        if former is not None:  # of no class is anything held there
            former = np.concatenate([former, np.zeros((m, former.shape[1]), former.dtype)])
        return type(self)(
            np.concatenate([self.labels, labels]),
            np.concatenate([own, weight * kept]),
            former,
            np.concatenate([np.ones(n), np.full(m, weight)]),
        )
