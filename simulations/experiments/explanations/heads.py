"""Heads that have learned nothing: a map that does not change with the head says nothing [1]_.

References
----------
.. [1] Adebayo et al., "Sanity checks for saliency maps", NeurIPS 2018.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from common.arrays import Floats
from common.explanations.evidence import PooledHead

REPEATS = 3
"""Heads of each kind."""


def untrained(
    head: PooledHead, channels: Sequence[int], seed: int
) -> Mapping[str, list[PooledHead]]:
    """Return heads with the weights of other features, and with random ones, by kind.

    Both are made level by level, so that each level keeps its say.

    Parameters
    ----------
    channels : numbers of channels of the levels that the head reads.
    """
    rng = np.random.default_rng(seed)
    levels = np.split(head.weights, np.cumsum(channels)[:-1], axis=1)

    def permuted(weights: Floats) -> Floats:
        return weights[:, rng.permutation(weights.shape[1])]

    def random(weights: Floats) -> Floats:
        return rng.normal(0, weights.std(), weights.shape)

    return {
        name: [
            replace(head, weights=np.concatenate([made(level) for level in levels], axis=1))
            for _ in range(REPEATS)
        ]
        for name, made in (("weights permuted", permuted), ("weights random", random))
    }
