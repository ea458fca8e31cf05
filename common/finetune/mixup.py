"""Images that are mixed in pairs, so that a long training does not learn them by heart."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from common.finetune.plan import Item

_MIXUP, _CUTMIX = 0.4, 1.0
"""Parameters of the Beta distributions that the shares are drawn from."""

_OF_MIXING = 2  # tells these draws from those of orders and dropout


class Mix(NamedTuple):
    """How each of n images is mixed with the one before it.

    Attributes
    ----------
    share : of the image itself, in [0, 1]; the rest is the other's.
    box : top, bottom, left and right edge of what is the other's, as shares of the side, where it
        is a box; None where the two lie over each other.
    """

    share: float
    box: tuple[float, float, float, float] | None = None

    @classmethod
    def drawn(cls, seed: Sequence[int], items: Sequence[Item], chance: float) -> "Mix | None":
        """Draw how images are mixed; None if they are not.

        Mixup: Zhang et al., ICLR 2018, equation 1. CutMix: Yun et al., ICCV 2019, equations 1, 2.

        Parameters
        ----------
        seed : of the site.
        items : the images.
        chance : that they are mixed, in [0, 1]; half of it by each way.
        """
        first = items[0]
        rng = np.random.default_rng([*seed, first.image, first.view, _OF_MIXING])
        way = rng.random()
        if way >= chance or len(items) < 2:
            return None
        if way < chance / 2:
            return cls(float(rng.beta(_MIXUP, _MIXUP)))
        half = math.sqrt(1 - rng.beta(_CUTMIX, _CUTMIX)) / 2
        y, x = rng.random(2)
        top, bottom, left, right = np.clip([y - half, y + half, x - half, x + half], 0, 1).tolist()
        return cls(1 - (bottom - top) * (right - left), (top, bottom, left, right))

    def images(self, images: Tensor) -> tuple[Tensor, "Mix"]:
        """Mix images.

        Parameters
        ----------
        images : (n, channels, side, side).

        Returns
        -------
        Of the same shape (n, channels, side, side), and the mix with its share in whole pixels.
        """
        others = images.roll(1, 0)
        if self.box is None:
            return self.blend(images), self
        side = images.shape[-1]
        top, bottom, left, right = (round(edge * side) for edge in self.box)
        mixed = images.clone()
        mixed[..., top:bottom, left:right] = others[..., top:bottom, left:right]
        return mixed, Mix(1 - (bottom - top) * (right - left) / side**2, self.box)

    def blend(self, values: Tensor) -> Tensor:
        """Blend values of each image with those of the one before it, by their shares.

        Parameters
        ----------
        values : (n, ...).

        Returns
        -------
        (n, ...).
        """
        return torch.lerp(values.roll(1, 0), values, self.share)
