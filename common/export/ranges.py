"""How large the values of a network's tensors are: counts that add over pictures and sites.

An 8-bit network needs the range of each tensor, and the mean of each of its channels. Sites count
the values of their own pictures in fixed bins, the counts add, and the ranges of the sum are those
of the pooled pictures, to the last bit. No picture leaves its site.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
from onnx import ModelProto, TensorProto, helper

from common.arrays import Floats, Floats32, Ints
from common.data.dataset import Dataset
from common.errors import DataError, ReplyError, reason
from common.export.graph import Parts
from common.export.session import Exported, pixels_of
from common.features.inference_engine import one_thread_per_core
from common.statistics.sums import Sums
from common.storage.verified import DamagedError, read_arrays, write_arrays

Tensors = Mapping[str, int]
"""The tensors that a network computes with, in order: numbers of channels by name."""

Ranges = Mapping[str, tuple[float, float]]
"""Least and largest value of tensors by name; zero is always inside."""

_STEPS = 5  # bits of the mantissa: bins are at most 3 % wide
_LEAST, _MOST = -16, 16  # powers of two; smaller sizes count as 0, larger ones as the last bin
_SIZES = (_MOST - _LEAST) << _STEPS
BINS = 2 * _SIZES
"""Bins of a tensor: half of them for negative values, ascending."""

_SHIFT = 23 - _STEPS
_FIRST = (127 + _LEAST) << _STEPS
_SHRUNK = np.linspace(0.2, 1.0, 81)
_LEVELS = 255
_MAP = 4  # dimensions: views, channels, height, width


@dataclass(frozen=True)
class TensorCounts(Sums):
    """What pictures add to what is known of a network's tensors.

    Attributes
    ----------
    values : (tensors, BINS) numbers of values, by the tensors' order and by size.
    channels : (n_channels,) sums over pictures of the mean of each channel, of all tensors.
    pictures : () number of pictures.
    """

    nonnegative: ClassVar[tuple[str, ...]] = ("values", "pictures")

    values: Ints
    channels: Floats
    pictures: Ints

    @classmethod
    def zero(cls, tensors: Tensors) -> Self:
        """Return the counts of no pictures."""
        values = np.zeros((len(tensors), BINS), dtype=np.int64)
        return cls(values, np.zeros(sum(tensors.values())), np.array(0))

    @classmethod
    def measure(cls, maps: Sequence[Floats32]) -> Self:
        """Count the values of one picture's tensors.

        Parameters
        ----------
        maps : each (P, channels, h, w).
        """
        values = [np.bincount(bins_of(each), minlength=BINS) for each in maps]
        means = [each.mean(axis=(0, 2, 3), dtype=np.float64) for each in maps]
        return cls(np.array(values, dtype=np.int64), np.concatenate(means), np.array(1))

    def ranges(self, tensors: Tensors) -> Ranges:
        """Return the range of each tensor whose 256 steps make the least squared error."""
        return {name: _range(row) for name, row in zip(tensors, self.values, strict=True)}

    def means(self, tensors: Tensors) -> dict[str, Floats]:
        """Return the mean (channels,) of each channel of each tensor."""
        ends = np.cumsum([*tensors.values()])[:-1]
        parts = np.split(self.channels / max(int(self.pictures), 1), ends)
        return dict(zip(tensors, parts, strict=True))


def write_counts(file: Path, counts: TensorCounts, model: str) -> None:
    """Write a site's counts, to be added to those of others.

    Parameters
    ----------
    model : SHA-256 of the model's file.

    Raises
    ------
    DataError
        If the file cannot be written.
    """
    write_arrays(file, counts.to_record(), {"model": model})


def read_counts(file: Path, like: TensorCounts, model: str) -> TensorCounts:
    """Read a site's counts; parameters are those of :func:`write_counts`.

    Parameters
    ----------
    like : counts of the same tensors.

    Raises
    ------
    DataError
        If there are none in the file, or they are of another model.
    """
    try:
        arrays, about = read_arrays(file)
        if about.get("model") != model:
            raise DataError(f"{file} has counts of another model; count by this one")
        return like.from_record(arrays)
    except (OSError, DamagedError, ReplyError) as error:
        raise DataError(f"{file} holds no counts of `fedderm ranges` ({reason(error)})") from error


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


def _range(counts: Ints) -> tuple[float, float]:
    """Return the part of all values' range, of counts (BINS,), that makes the least error."""
    held = np.flatnonzero(counts)
    if not len(held):
        return 0.0, 0.0
    low, high = min(edges()[held[0]], 0.0), max(edges()[held[-1] + 1], 0.0)
    middles = (edges()[1:] + edges()[:-1]) / 2
    lows, highs = low * _SHRUNK[:, None], high * _SHRUNK[:, None]
    cut = np.maximum(lows - middles, 0) + np.maximum(middles - highs, 0)
    step = (highs - lows) / _LEVELS
    error = np.where(cut > 0, cut**2, step**2 / 12) @ counts
    best = _SHRUNK[int(error.argmin())]
    return float(low * best), float(high * best)


def tensors_of(network: ModelProto) -> Tensors:
    """Return the maps that a network computes with: its input, and what its nodes give."""
    graph = network.graph
    shapes = {
        each.name: [side.dim_value for side in each.type.tensor_type.shape.dim]
        for each in (*graph.input, *graph.value_info, *graph.output)
    }
    made = (name for node in graph.node for name in node.output)
    names = [name for name in (graph.input[0].name, *made) if len(shapes[name]) == _MAP]
    return {name: shapes[name][1] for name in names}


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
    tensors, seen = tensors_of(parts.network), parts.joined()
    del seen.graph.output[:]
    seen.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in tensors
    )
    exported = Exported(seen.SerializeToString())

    def of_image(name: str) -> TensorCounts:
        return TensorCounts.measure(exported.outputs(pixels_of(dataset, name, resolution)))

    total = TensorCounts.zero(tensors)
    with one_thread_per_core() as pool:
        for counted in pool.map(of_image, [image.image_id for image in dataset.images]):
            total += counted
    return total
