"""SCAFFOLD at a site: its control variate corrects steps, and moves by what they did.

Karimireddy et al., "SCAFFOLD: stochastic controlled averaging for federated learning", ICML 2020.
"""

import numpy as np
import torch

from client.finetune.moments import Tensors
from common.config.run import RunConfig
from common.finetune.plan import CONTROL
from common.networks.network import DEVICE, Stage


def correction(stage: Stage, tensors: Tensors, control: Tensors) -> dict[str, torch.Tensor]:
    """Return c - c_i by parameter; nothing where no control variates were sent.

    Parameters
    ----------
    tensors : as sent, by name, in the network's shapes; those of c are named as parameters after
        ``CONTROL``.
    control : this site's c_i, by the same names, in the same shapes; zeros where it has none.

    Returns
    -------
    By parameter, in the network's shapes.
    """
    sent = {n: tensors[CONTROL + n] for n in stage.trainable if CONTROL + n in tensors}
    return {
        name: torch.from_numpy(np.asarray(c - control.get(CONTROL + name, 0))).to(DEVICE)
        for name, c in sent.items()
    }


def control_change(
    stage: Stage, config: RunConfig, tensors: Tensors, change: Tensors, travelled: float
) -> Tensors:
    """Return the change of c_i by option II of equation 4, where control variates were sent.

    Parameters
    ----------
    tensors : as of :func:`correction`, in the network's shapes.
    change : of each parameter by this round's steps, in the network's shapes.
    travelled : sum of the learning rates of these steps.

    Returns
    -------
    By the names of c, in the network's shapes.
    """
    moved: Tensors = {}
    for name, depth in stage.depth.items():
        if CONTROL + name in tensors:
            rate = travelled * config.layer_decay**depth
            c = tensors[CONTROL + name]
            new = -c - change[name] / np.float32(rate) if rate else np.zeros_like(c)
            moved[CONTROL + name] = np.asarray(new, np.float32)
    return moved
