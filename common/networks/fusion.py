"""How a fine-tuned network takes what is known of a patient, in NumPy as in PyTorch.

``late``: the numbers stand beside the pooled features before the last layer, so that they add to
each score. ``gate``: they scale and shift each pooled feature f, ``2 sigmoid(T1(m)) f + T2(m)``, as
MetaBlock [1]_ and FiLM [2]_ do. Either way a score stays linear in the pooled features of an image.

MetaBlock itself is ``sigmoid(tanh(T1(m) f) + T2(m))`` on groups of pooled features, with batch
normalisation in T1 and T2. Two things differ here. There is no batch normalisation: its statistics
differ between sites. And features are not squashed: a sigmoid of a tanh leaves of 0 to 6 only 0.50
to 0.73, and much of what a pretrained network knows is lost with that. This gate lets features
through as they are until it has learnt. `docs/metadata.md` has both forms' figures.

All weights of the numbers start at zero, which is the network without them. Those of a number that
no training had stay zero in every optimiser here, and prediction counts it as unknown.

References
----------
.. [1] Pacheco and Krohling, "An attention-based mechanism to combine images and metadata in deep
   learning models applied to skin cancer classification", IEEE Journal of Biomedical and Health
   Informatics 25 (9), 2021, equation 1.
.. [2] Perez et al., "FiLM: visual reasoning with a general conditioning layer", AAAI 2018,
   equation 2.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from common.arrays import Floats, Floats32
from common.data.metadata import as_unknown, width

Kind = Literal["late", "gate"]
Shape = tuple[int, ...]

METADATA = "metadata"
"""What the names of the tensors begin with."""

ADDED, SCALE, SHIFT = (f"{METADATA}.{name}.weight" for name in ("added", "scale", "shift"))

GAIN: Mapping[Kind, float] = MappingProxyType({"late": 16.0, "gate": 4.0})
"""Size of the numbers beside pooled features: optimisers move every weight about as far, and there
are many more features."""


class Fusion(NamedTuple):
    """How metadata enter a network.

    Attributes
    ----------
    width : how many numbers they are.
    """

    kind: Kind
    width: int

    def shapes(self, n_classes: int, n_features: int) -> dict[str, Shape]:
        """Return the shapes of the tensors by name."""
        if self.kind == "late":
            return {ADDED: (n_classes, self.width)}
        return dict.fromkeys((SCALE, SHIFT), (n_features, self.width))


def fusion_of(kind: Kind, columns: Sequence[str]) -> Fusion | None:
    """Return how the columns enter a network; None if there are none."""
    return Fusion(kind, width(columns)) if columns else None


def heard(
    columns: Sequence[str], numbers: Floats32, weights: Mapping[str, NDArray[np.float32]]
) -> Floats32:
    """Return ``numbers`` (n, width) with those that no training had counted as unknown.

    Parameters
    ----------
    weights : the network's tensors by name, with its metadata's of shape (..., width).

    Returns
    -------
    (n, width), each column's still adding to 1.
    """
    seen = np.zeros(numbers.shape[1], dtype=np.bool_)
    for name in (ADDED, SCALE, SHIFT):
        if name in weights:
            seen |= weights[name].any(axis=0)
    return as_unknown(columns, numbers, seen)


def told(
    kind: Kind, weights: Mapping[str, Floats32], head: tuple[Floats, Floats], numbers: Floats32
) -> tuple[Floats, Floats]:
    """Return the last layer that a patient's numbers make of a network's own.

    Parameters
    ----------
    weights : the network's tensors by name, of the shapes of :meth:`Fusion.shapes`.
    head : weights (n_classes, n_features) and intercepts (n_classes,) of the last layer.
    numbers : (width,) of the patient.

    Returns
    -------
    Weights and intercepts, of the same shapes, for the pooled features in front of the fusion.
    """
    weight, bias = head
    about = GAIN[kind] * numbers.astype(np.float64)
    if kind == "late":
        return weight, np.asarray(bias + weights[ADDED].astype(np.float64) @ about)
    scale, shift = (weights[name].astype(np.float64) @ about for name in (SCALE, SHIFT))
    return np.asarray(weight * (2 / (1 + np.exp(-scale)))), np.asarray(bias + weight @ shift)
