"""Sums over a site's privacy units, each of bounded norm, and the noise that hides each unit."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from client.privacy import draws
from common.config.run import RunConfig
from common.privacy.linear import OVERVIEW_NORM, NoisySum, Units, overview, plan
from common.privacy.noise import noisy


class Clipped(NamedTuple):
    """A sum over a site's units, before its noise.

    Attributes
    ----------
    sums : any shape.
    norm : largest norm of what one unit adds to them.
    noise : multiplier of the noise that the plan has for them; 0 for none.
    """

    sums: NDArray[np.float64]
    norm: float
    noise: float

    def noisy(self, honest: int) -> NoisySum:
        """Add this site's share of the noise, where ``honest`` sites at least add theirs."""
        multiplier = self.noise / np.sqrt(honest)
        return NoisySum(noisy(self.sums, self.norm, multiplier, draws.randomness))


def clipped_overview(config: RunConfig, units: Units) -> Clipped:
    """Sum the overview that a run begins with: units of each class, and their mean records."""
    spent = plan(config)
    noise = spent.overview.noise if spent else 0.0
    return Clipped(overview(units, config.task.n_classes), OVERVIEW_NORM, noise)


def training_noise(config: RunConfig) -> float:
    """Return the multiplier of the noise that the plan has for the sums of training; 0 for none."""
    spent = plan(config)
    return spent.training.noise if spent else 0.0
