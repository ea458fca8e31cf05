"""How large the values of a network's tensors are: histograms that add over pictures and sites.

An 8-bit network needs the range of each tensor. Sites count the values of their own pictures in
fixed bins, the counts add, and ranges follow from the sum: it is what the pooled pictures give, to
the last bit, and no picture leaves its site.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

import numpy as np
from onnx import ModelProto, TensorProto, helper

from common.arrays import Floats, Floats32, Ints
from common.data.dataset import Dataset
from common.export.graph import Parts
from common.export.session import Exported, pixels_of
from common.features.inference_engine import one_thread_per_core
from common.statistics.sums import Sums

Choice = Literal["widest", "percentile", "least-error"]
"""How a range is chosen: all values; all but one in ten thousand; least squared error."""

Ranges = Mapping[str, tuple[float, float]]
"""Least and largest value of tensors by name; zero is always inside."""

_STEPS = 5  # bits of the mantissa: bins are at most 3 % wide
_LEAST, _MOST = -16, 16  # powers of two; smaller sizes count as 0, larger ones as the last bin
_SIZES = (_MOST - _LEAST) << _STEPS
BINS = 2 * _SIZES
"""Bins of a tensor: half of them for negative values, ascending."""

_SHIFT = 23 - _STEPS
_FIRST = (127 + _LEAST) << _STEPS
_LEFT_OUT = 1e-4
_SHRUNK = np.linspace(0.2, 1.0, 81)
_LEVELS = 255


@dataclass(frozen=True)
class TensorCounts(Sums):
    """What pictures add to the histograms of a network's tensors.

    Attributes
    ----------
    values : (tensors, BINS) numbers of values, by the tensors' order and by size.
    pictures : () number of pictures.
    """

    nonnegative: ClassVar[tuple[str, ...]] = ("values", "pictures")

    values: Ints
    pictures: Ints

    @classmethod
    def zero(cls, tensors: int) -> Self:
        """Return the counts of no pictures."""
        return cls(np.zeros((tensors, BINS), dtype=np.int64), np.array(0))

    @classmethod
    def measure(cls, tensors: Sequence[Floats32]) -> Self:
        """Count the values of one picture's tensors, each of any shape."""
        values = [np.bincount(bins_of(tensor), minlength=BINS) for tensor in tensors]
        return cls(np.array(values, dtype=np.int64).reshape(-1, BINS), np.array(1))

    def ranges(self, names: Sequence[str], choice: Choice) -> Ranges:
        """Return the range of each tensor.

        Parameters
        ----------
        names : of the tensors, in their order.
        """
        return {name: _range(row, choice) for name, row in zip(names, self.values, strict=True)}


def bins_of(values: Floats32) -> Ints:
    """Return the bins (n,), in [0, BINS), of n values of any shape.

    The bin is made of the number's own bits: it is the same on every machine.
    """
    bits = np.ascontiguousarray(values, dtype=np.float32).ravel().view(np.int32)
    size = ((bits & 0x7FFFFFFF) >> _SHIFT) - _FIRST
    size = np.clip(size, 0, _SIZES - 1)
    bins: Ints = np.where(bits < 0, _SIZES - 1 - size, _SIZES + size).astype(np.int64)
    return bins


def edges() -> Floats:
    """Return the edges (BINS + 1,) of the bins, ascending; the two in the middle hold zero."""
    steps = np.arange(_SIZES + 1)
    sizes = np.ldexp(1 + (steps % (1 << _STEPS)) / (1 << _STEPS), (steps >> _STEPS) + _LEAST)
    sizes[0] = 0.0
    return np.concatenate([-sizes[:0:-1], sizes])


def _range(counts: Ints, choice: Choice) -> tuple[float, float]:
    """Return the range of a tensor with counts (BINS,)."""
    left_out = _LEFT_OUT if choice == "percentile" else 0.0
    low, high = _holding(counts, left_out)
    if choice == "least-error":
        low, high = _least_error(counts, low, high)
    return min(low, 0.0), max(high, 0.0)


def _holding(counts: Ints, left_out: float) -> tuple[float, float]:
    """Return the range that all but a share of the values lie in, half of the share at each end."""
    below, allowed = np.cumsum(counts), left_out / 2 * counts.sum()
    first = int(np.searchsorted(below, allowed, side="right"))
    last = int(np.searchsorted(below, below[-1] - allowed, side="left"))
    return float(edges()[min(first, BINS - 1)]), float(edges()[min(last, BINS - 1) + 1])


def _least_error(counts: Ints, low: float, high: float) -> tuple[float, float]:
    """Return the part of a range whose 256 steps make the least squared error."""
    middles = (edges()[1:] + edges()[:-1]) / 2
    lows, highs = low * _SHRUNK[:, None], high * _SHRUNK[:, None]
    cut = np.maximum(lows - middles, 0) + np.maximum(middles - highs, 0)
    step = (highs - lows) / _LEVELS
    error = np.where(cut > 0, cut**2, step**2 / 12) @ counts
    best = _SHRUNK[int(error.argmin())]
    return low * float(best), high * float(best)


def tensors_of(network: ModelProto) -> list[str]:
    """Return the names of the tensors that a network computes with: its input, and what follows."""
    return [network.graph.input[0].name, *(name for n in network.graph.node for name in n.output)]


def count_tensors(parts: Parts, dataset: Dataset, resolution: int) -> TensorCounts:
    """Count the network's tensors over a dataset's pictures, in the order of :func:`tensors_of`.

    Parameters
    ----------
    parts : of a model's graph.
    resolution : that of the model.

    Raises
    ------
    DataError
        If a picture cannot be read or decoded, with its name.
    """
    names, seen = tensors_of(parts.network), parts.joined()
    del seen.graph.output[:]
    seen.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names
    )
    exported = Exported(seen.SerializeToString())

    def of_image(name: str) -> TensorCounts:
        return TensorCounts.measure(exported.outputs(pixels_of(dataset, name, resolution)))

    total = TensorCounts.zero(len(names))
    with one_thread_per_core() as pool:
        for counted in pool.map(of_image, [image.image_id for image in dataset.images]):
            total += counted
    return total
