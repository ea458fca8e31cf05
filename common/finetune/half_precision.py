"""A round's tensors as they cross the wire: in half precision, so in half of the bytes.

Weights go to a site as their difference from the pretrained network's, which it has: what is
rounded is only what training has changed. Coordinator and sites compute in single precision. A
site's change is from the weights that it received, so what rounding takes from these is not lost to
the coordinator's own.
"""

from collections.abc import Collection, Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from common.arrays import Floats32
from common.config.run import RunConfig
from common.finetune.plan import SQUARES, STEP

Tensors = Mapping[str, Floats32]
Sent = Mapping[str, NDArray[np.generic]]

_SCALE = np.float32(256)
"""Without it small gradients, and what steps divide by, would be among the subnormal numbers."""


HALF: Literal["<f2", "<f4"] = "<f2"
"""The type of what is rounded, as NumPy writes it."""


def dtype_of(name: str, wide: Collection[str] = ()) -> Literal["<f2", "<f4"]:
    """Return the type of a tensor on the wire, as NumPy writes it; numbers of steps stay exact.

    Parameters
    ----------
    wide : prefixes of the names of others that are in single precision.
    """
    return "<f4" if name.startswith((f"{STEP}/", *wide)) else HALF


def wide_sums(config: RunConfig) -> Collection[str]:
    """Return the prefixes of what sites answer with in single precision.

    The sums of q-FedAvg have no bound. In secure sums mean squares are added as they are, of which
    small ones matter as much as large ones.
    """
    if config.strategy == "qfedavg":
        return ("",)
    return (f"{SQUARES}/",) if config.secure else ()


def to_wire(tensors: Tensors) -> dict[str, NDArray[np.generic]]:
    """Return ``tensors`` by name, in their shapes and as they cross the wire.

    Numbers are right to one part in 2,048, or to 1.2e-10 where that is more; mean squares go by
    their roots, and so do their changes, with the sign. What is above 255 becomes infinite, which
    neither side takes.
    """
    with np.errstate(over="ignore"):
        return {
            name: np.asarray(a if _exact(name) else _small(name, a) * _SCALE, dtype_of(name))
            for name, a in tensors.items()
        }


def from_wire(sent: Sent) -> dict[str, Floats32]:
    """Return what :func:`to_wire` made smaller, by name and in the same shapes."""
    return {
        name: np.asarray(a, np.float32) if _exact(name) else _large(name, a)
        for name, a in sent.items()
    }


def rounded(tensors: Tensors) -> dict[str, Floats32]:
    """Return ``tensors`` by name, in their shapes, as the other side of the wire has them."""
    return from_wire(to_wire(tensors))


def to_site(tensors: Tensors, pretrained: Tensors) -> dict[str, NDArray[np.generic]]:
    """Return what a round starts from, by name and in its shapes, as it goes to a site.

    Parameters
    ----------
    pretrained : weights by name, of the same shapes, which the site has.
    """
    return to_wire({n: a - pretrained[n] if n in pretrained else a for n, a in tensors.items()})


def at_site(sent: Sent, pretrained: Tensors) -> dict[str, Floats32]:
    """Return what a round starts from at a site, by name and in its shapes."""
    return {
        name: a + pretrained[name] if name in pretrained else a
        for name, a in from_wire(sent).items()
    }


def _exact(name: str) -> bool:
    return name.startswith(f"{STEP}/")


def _small(name: str, array: Floats32) -> Floats32:
    """Return what is rounded of numbers (...): squares would be among the subnormal numbers."""
    if not name.startswith(f"{SQUARES}/"):
        return array
    return np.asarray(np.copysign(np.sqrt(np.abs(array)), array))


def _large(name: str, halves: NDArray[np.generic]) -> Floats32:
    array = np.asarray(halves, np.float32) / _SCALE
    return np.asarray(array * np.abs(array)) if name.startswith(f"{SQUARES}/") else array
