"""The layers by which a network takes metadata, in PyTorch; :mod:`common.networks.fusion` in NumPy.

Every weight is a plain linear layer's, and starts at zero.
"""

import torch
from torch import Tensor, nn

from common.networks.fusion import GAIN, Fusion


class Late(nn.Module):
    """The numbers beside the pooled features.

    Attributes
    ----------
    added : maps them to what is added to the logits.
    """

    def __init__(self, width: int, n_classes: int) -> None:
        super().__init__()
        self.added = _zeros(width, n_classes)

    def forward(self, head: nn.Module, features: Tensor, factors: Tensor, about: Tensor) -> Tensor:
        """Map features (n, n_features) to logits (n, n_classes).

        Parameters
        ----------
        factors : (n, n_features) of dropout on what the head sees, or () for all.
        about : (n, width) numbers of the patients.
        """
        logits: Tensor = head(features * factors) + self.added(GAIN["late"] * about)
        return logits


class Gate(nn.Module):
    """The numbers as a gate on the pooled features.

    Attributes
    ----------
    scale, shift : map them to what is multiplied with, behind a sigmoid, and added to each feature.
    """

    def __init__(self, width: int, n_features: int) -> None:
        super().__init__()
        self.scale, self.shift = _zeros(width, n_features), _zeros(width, n_features)

    def forward(self, head: nn.Module, features: Tensor, factors: Tensor, about: Tensor) -> Tensor:
        """Map features (n, n_features) to logits (n, n_classes).

        Parameters
        ----------
        factors : (n, n_features) of dropout on what the head sees, or () for all.
        about : (n, width) numbers of the patients.
        """
        about = GAIN["gate"] * about
        gated = 2 * torch.sigmoid(self.scale(about)) * features + self.shift(about)
        logits: Tensor = head(gated * factors)
        return logits


def fused(fusion: Fusion | None, n_classes: int, n_features: int) -> Late | Gate | None:
    """Return the layers of a fusion; None without metadata."""
    if fusion is None:
        return None
    if fusion.kind == "late":
        return Late(fusion.width, n_classes)
    return Gate(fusion.width, n_features)


def _zeros(inputs: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs, bias=False)
    nn.init.zeros_(layer.weight)
    return layer
