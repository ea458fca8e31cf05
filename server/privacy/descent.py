"""Descent along noisy gradients: the remedy for rare classes, the steps and their average.

What is computed from noisy sums costs no more privacy: step sizes, averages, scales.
"""

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple, Self

import numpy as np

from common.arrays import Floats
from common.config.run import RunConfig

Arrays = Mapping[str, Floats]
Total = Callable[[str, int, tuple[int, ...], Arrays], Floats]
"""Returns the sum over all sites in real numbers, given a question's name, the step, the shape of
the sum and what goes with the question."""


_MOMENTUM: Final = 0.9


class Learned(NamedTuple):
    """A model learned from noisy sums.

    Attributes
    ----------
    weights : (n_classes, d + 1) for records that are not centred, the intercepts last; of a network
        all open ones, (size,).
    offset : (n_classes,) added to the scores for the classes' own frequencies.
    counts : (n_classes,) noisy numbers of units, at least 1.
    """

    weights: Floats
    offset: Floats
    counts: Floats


class Remedy(NamedTuple):
    """The remedy for rare classes.

    Attributes
    ----------
    sent : with every question, (n_classes,) each: "offset", which is added to the scores in
        training, and "class_weight", which clipped gradients are multiplied with.
    priors : (n_classes,) added to the trained scores for the classes' own frequencies.
    units : noisy number of units, each counted by its class's weight.
    """

    sent: Arrays
    priors: Floats
    units: float

    @classmethod
    def choose(cls, config: RunConfig, counts: Floats) -> Self:
        """Choose the remedy that is configured.

        Parameters
        ----------
        counts : (n_classes,) noisy numbers of units, at least 1.

        References
        ----------
        Menon et al., "Long-tail learning via logit adjustment", ICLR 2021, equation 10, which
        unlike weights does not make the gradients of frequent classes shorter beside the noise.
        """
        even = np.ones(len(counts))
        adjusted = config.imbalance_strength * np.log(counts / counts.sum())
        match config.imbalance:
            case "logits":
                return cls({"offset": adjusted, "class_weight": even}, adjusted, counts.sum())
            case "weights":
                weight = (counts / counts.min()) ** -config.imbalance_strength
                sent = {"offset": 0 * even, "class_weight": weight}
                return cls(sent, adjusted, float(counts @ weight))
        return cls({"offset": 0 * even, "class_weight": even}, 0 * even, counts.sum())


def descend(
    total: Total, config: RunConfig, fixed: Arrays, start: Floats, rates: Floats, units: float
) -> Floats:
    """Return the mean of the later half of the weights on the way down, in the shape of ``start``.

    By gradient descent with momentum (Polyak 1964); the average (Polyak and Juditsky 1992) has
    less noise than the last.

    Parameters
    ----------
    total : asks for the sum of the clipped gradients at the weights of a step.
    fixed : what goes with every question beside the weights, by name, as in `Remedy.sent`.
    start : weights to start from, of any shape.
    rates : learning rates, of a shape that broadcasts to that of the weights.
    units : noisy number of units.
    """
    weights, velocity, mean = start, np.zeros_like(start), np.zeros_like(start)
    for step in range(1, config.steps + 1):
        gradient = total("gradient", step, weights.shape, {**fixed, "weights": weights})
        velocity = _MOMENTUM * velocity + gradient / (config.rate * units)
        weights = weights - rates * velocity
        later = step - config.steps // 2
        if later > 0:
            mean = mean + (weights - mean) / later
    return mean
