"""A run's model as one file, which answers about held-out lesions as the model does."""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.arrays import Floats
from common.data.dataset import Dataset
from common.data.splits import TEST
from common.errors import ConfigError, DataError
from common.export import Form
from common.export.facts import add_facts, facts_of
from common.export.gate import Lesions, Row, compare
from common.export.graph import Parts, parts_of
from common.export.int8 import in_int8
from common.export.ranges import (
    TensorCounts,
    count_tensors,
    read_counts,
    tensors_of,
    write_counts,
)
from common.export.session import Exported, dataset_probabilities
from common.json_types import Json
from common.models.file import Model, load_model, network_folders
from common.networks.spatial_maps import map_network
from simulations.evaluation.held_out import HeldOut
from simulations.evaluation.runs import held_out_of
from simulations.runtimes.experiment import with_splits

PICTURES = 256
"""Pictures of training lesions, at most, that the ranges of an 8-bit network are counted over."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Export:
    """An exported file, and how it compares with its model.

    Attributes
    ----------
    content : of the file.
    facts : what it says of itself.
    rows : figures on held-out lesions; none where no data were given.
    """

    content: bytes
    facts: dict[str, Json]
    rows: Sequence[Row] = ()

    @property
    def refused(self) -> list[str]:
        """What the file is worse in than allowed."""
        return [row.what for row in self.rows if row.verdict == "refused"]


def export(
    file: Path,
    form: Form,
    data: Path | None,
    cache: Path,
    weights: Sequence[Path] = (),
    ranges: Sequence[Path] = (),
) -> Export:
    """Export a run's model; compare it with the model where there are data.

    Parameters
    ----------
    file : of the model, in its run's folder.
    data : images with the lesions that the run held out, on which the file is compared, and with
        others, over which the ranges of an 8-bit network are counted.
    cache : folder of hashes of pictures.
    weights : files among which the model's pretrained weights are found.
    ranges : files of sites' counts, of :func:`count`, in place of counts over ``data``.

    Raises
    ------
    ConfigError
        If the format needs data or takes no ranges, or the model's network or its weights cannot
        be had.
    DataError
        If a file cannot be read, or the run trained on its test lesions.
    """
    if data is None and form == "onnx-int8":
        raise ConfigError(
            "8 bits need pictures to count ranges over, and held-out lesions; add --data DIR"
        )
    if ranges and form != "onnx-int8":
        raise ConfigError("--ranges are for 8 bits; add --format onnx-int8")
    model = load_model(file, *weights)
    held_out = None if data is None else held_out_of(data, file, model, cache)
    digest, parts = _digest(file), parts_of(model)
    if data is not None and form == "onnx-int8":
        counts = _added(parts, ranges, digest) if ranges else _count(parts, model, data)
        parts = _in_int8(parts, counts)
    graph, facts = parts.joined(), facts_of(model, form, digest)
    if held_out is None:
        add_facts(graph, facts)
        return Export(graph.SerializeToString(), facts)
    rows = _compared(model, file, held_out, graph.SerializeToString())
    gate: Json = {
        "lesions": len(held_out.dataset.by_lesion.sizes),
        "rows": [row.to_json() for row in rows],
    }
    facts["gate"] = gate
    add_facts(graph, facts)
    return Export(graph.SerializeToString(), facts, rows)


def content_of(model: Model, form: Form, data: Path) -> bytes:
    """Return the file of a model without what it says of itself, not compared with the model.

    Parameters and errors are those of :func:`export`.
    """
    parts = parts_of(model)
    if form == "onnx-int8":
        parts = _in_int8(parts, _count(parts, model, data))
    content: bytes = parts.joined().SerializeToString()
    return content


def count(file: Path, data: Path, out: Path, weights: Sequence[Path] = ()) -> int:
    """Count the values of a model's network over a site's training images; return how many.

    Parameters
    ----------
    file : of the model, in its run's folder.
    data : the site's images.
    out : new file, for :func:`export` at another place.
    weights : files among which the model's pretrained weights are found.

    Raises
    ------
    ConfigError
        If the model's network or its weights cannot be had.
    DataError
        If a file cannot be read or written.
    """
    model = load_model(file, *weights)
    counts = _count(parts_of(model), model, data)
    write_counts(out, counts, _digest(file))
    return int(counts.pictures)


def _in_int8(parts: Parts, counts: TensorCounts) -> Parts:
    return parts._replace(network=in_int8(parts.network, counts))


def _added(parts: Parts, files: Sequence[Path], digest: str) -> TensorCounts:
    zero = TensorCounts.zero(tensors_of(parts.network))
    return sum((read_counts(each, zero, digest) for each in files), zero)


def _count(parts: Parts, model: Model, data: Path) -> TensorCounts:
    pictures = _some(with_splits(data, model.config), model.config.seed)
    _log.info("counting ranges over %d pictures of training lesions", len(pictures))
    return count_tensors(parts, pictures, model.config.resolution)


def _some(dataset: Dataset, seed: int) -> Dataset:
    """Return some images of the lesions that are not for testing, by chance."""
    rows = np.flatnonzero(dataset.splits != TEST)
    if not len(rows):
        raise DataError(f"{dataset.folder} has test lesions alone; 8 bits need others, too")
    chosen = np.random.default_rng([seed, 8]).permutation(rows)[:PICTURES]
    return dataset.select(np.sort(chosen))


def _compared(model: Model, file: Path, held_out: HeldOut, content: bytes) -> list[Row]:
    dataset, resolution = held_out.dataset, model.config.resolution
    _log.info("comparing file and model on %d held-out images", len(dataset))
    before = _probabilities(model, file, dataset)
    after = dataset_probabilities(Exported(content), dataset, resolution)
    lesions = Lesions(dataset.labels, dataset.by_lesion.index, model.config.seed)
    return compare(model.basis, lesions, before, after)


def _probabilities(model: Model, file: Path, dataset: Dataset) -> Floats:
    """Return the probabilities (n, n_classes) that `fedderm predict` gives for the images alone."""
    spec = model.config.feature_spec
    network = map_network(spec, network_folders(file, model.config), model.trained)
    files = ((each.image_id, dataset.read(each.image_id)) for each in dataset.images)
    scores = []
    for found in network.each(files, model.judge):
        if isinstance(found, DataError):
            raise found
        scores.append(found)
    return model.basis.probabilities(np.array(scores))


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
