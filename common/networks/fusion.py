"""How a fine-tuned network takes what is known of a patient, in NumPy as in PyTorch.

``late``: the numbers stand beside the pooled features before the last layer, so that a score stays
linear in pooled maps. ``gate``: they scale and shift each pooled feature, as MetaBlock does [1]_:
``sigmoid(tanh(T1(m) * f) + T2(m))``. Other than there, T1 and T2 have no batch normalisation,
whose statistics differ between sites, and start at one and zero, which needs no random numbers;
and the gate is on pooled features, not on groups of maps.

All weights of the numbers start at zero. So those of a number that no training had stay zero in
every optimiser here, and prediction counts it as unknown.

References
----------
.. [1] Pacheco and Krohling, "An attention-based mechanism to combine images and metadata in deep
   learning models applied to skin cancer classification", IEEE Journal of Biomedical and Health
   Informatics 25 (9), 2021, equation 1.
"""

from collections.abc import Mapping, Sequence
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

GAIN = 4.0
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


def added(weights: Mapping[str, Floats32], numbers: Floats32) -> Floats:
    """Return what late fusion adds to the logits (n_classes,).

    Parameters
    ----------
    weights : the network's tensors by name, of the shapes of :meth:`Fusion.shapes`.
    numbers : (width,) of the patient.
    """
    return np.asarray(GAIN * (weights[ADDED].astype(np.float64) @ numbers))


def gated(weights: Mapping[str, Floats32], features: Floats, numbers: Floats32) -> Floats:
    """Return pooled features behind the gate that the patient's numbers set, (n_features,).

    Parameters
    ----------
    weights : the network's tensors by name, of the shapes of :meth:`Fusion.shapes`.
    features : (n_features,) in front of it.
    numbers : (width,) of the patient.
    """
    scale, shift = (weights[name].astype(np.float64) @ numbers for name in (SCALE, SHIFT))
    return np.asarray(1 / (1 + np.exp(-(np.tanh((1 + scale) * features) + shift))))
