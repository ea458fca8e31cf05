"""Holding on to a former model's answers while a network is trained on.

Hinton, Vinyals and Dean, "Distilling the knowledge in a neural network", 2015, section 2; against
forgetting: Li and Hoiem, "Learning without forgetting", ECCV 2016, equation 2.
"""

import numpy as np
from scipy.special import softmax
from torch import Tensor
from torch.nn import functional

from common.arrays import Bools, Floats, Floats32

_TEMPERATURE = 2.0
"""By which logits are divided on both sides, as in both papers."""


def softened(logits: Floats, known: Bools) -> Floats32:
    """Return a former model's softened probabilities (n, n_classes).

    Parameters
    ----------
    logits : (n, n_classes).
    known : (n_classes,) whether the former model tells a class apart; the others have 0.
    """
    soft = np.zeros(logits.shape, dtype=np.float32)
    soft[:, known] = softmax(logits[:, known] / _TEMPERATURE, axis=1)
    return soft


def distillation_loss(logits: Tensor, former: Tensor) -> Tensor:
    """Return the divergence from a former model's answers (), summed over images.

    Parameters
    ----------
    logits : (n, n_classes) of the network.
    former : (n, n_classes) of :func:`softened`; on classes that it did not know nothing is held.
    """
    known = (former > 0).any(dim=0)
    soft = functional.log_softmax(logits[:, known] / _TEMPERATURE, dim=1)
    divergence = functional.kl_div(soft, former[:, known], reduction="sum")
    return _TEMPERATURE**2 * divergence
