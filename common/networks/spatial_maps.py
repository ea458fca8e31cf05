"""A network's maps of an image's prediction views: scores and evidence maps are made of the same.

The network is exported for ONNX Runtime once, with all that is needed beside it, and kept. From
then on an answer imports neither PyTorch nor timm.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np

from common.arrays import Floats32
from common.errors import DataError, reason
from common.features.augment import normalise, prediction_view
from common.features.extract import FeatureSpec
from common.features.inference_engine import (
    Built,
    Run,
    export,
    one_thread_per_core,
    onnx_runner,
    torch_runner,
)
from common.features.pretrained import weights_digest

MAPS_VERSION = 1
"""Raise it with every change of what is exported, or kept networks of the old kind are used."""

BLOCK = 64
"""Image files in memory at once."""

Maps = Sequence[Floats32]
"""Of one image: by level, the final one last, (P, channels, height, width) over its P views."""

T = TypeVar("T")


@dataclass(frozen=True)
class MapNetwork:
    """A network that gives its spatial maps of image files.

    Attributes
    ----------
    spec : its transform, size, levels and number of prediction views.
    """

    spec: FeatureSpec
    _run: Run
    _mean: tuple[float, ...]
    _std: tuple[float, ...]

    def maps(self, data: bytes) -> Maps:
        """Return the maps of a JPEG or PNG file, by level (P, channels, height, width).

        Raises
        ------
        DataError
            If it cannot be decoded.
        """
        size = self.spec.size
        image = self.spec.transform.image(data)
        views = (prediction_view(image, number, size) for number in range(self.spec.predictions))
        return self._run(np.stack([normalise(view, self._mean, self._std) for view in views]))

    def each(
        self, images: Iterable[tuple[str, bytes]], of_maps: Callable[[Maps], T]
    ) -> Iterator[T | DataError]:
        """Yield what a function gives of the maps of each image, in order, computed on all cores.

        An image that cannot be decoded gives an error that names it, and the others go on.

        Parameters
        ----------
        images : names and bytes of JPEG or PNG files.
        of_maps : is called in several threads at once.
        """

        def of_image(image: tuple[str, bytes]) -> T | DataError:
            name, data = image
            try:
                return of_maps(self.maps(data))
            except DataError as error:
                return DataError(f"{name}: {error}")

        files = iter(images)
        with one_thread_per_core() as pool:
            while block := list(islice(files, BLOCK)):  # a pool takes in all it is given at once
                yield from pool.map(of_image, block)

    def features(self, images: Mapping[str, bytes]) -> Floats32:
        """Return the features (n, P, D) of the prediction views of n files by name, at least one.

        Raises
        ------
        DataError
            If an image cannot be decoded, with its name.
        """
        rows: list[Floats32] = []
        for row in self.each(images.items(), pooled):
            if isinstance(row, DataError):
                raise row
            rows.append(row)
        return np.stack(rows)


def pooled(maps: Maps) -> Floats32:
    """Return the global average pools (P, D) of an image's maps, (P, channels, h, w) by level."""
    return np.concatenate([each.mean(axis=(2, 3)) for each in maps], axis=1)


def map_network(
    spec: FeatureSpec, folders: Sequence[Path], trained: Mapping[str, Floats32] | None = None
) -> MapNetwork:
    """Return the network of a spec, exported now if it is not kept yet.

    Parameters
    ----------
    spec : backbone, weights, size, levels and number of prediction views.
    folders : where the exported network may be. It is kept in the first that can be written;
        without any, PyTorch runs it and nothing is exported.
    trained : for a fine-tuned network its tensors by name, of the network's shapes; the others are
        the pretrained ones. Its final map is its last activation before global pooling. Where such
        a network does more than pool that map, its map is its features, of height and width 1.

    Raises
    ------
    ConfigError
        If the backbone, its weights or ``levels`` cannot be used.
    DataError
        If its weights cannot be read, or ``trained`` does not fit it.
    """
    shape = (spec.predictions, 3, spec.size, spec.size)
    files = _files(spec, folders, trained)
    build = partial(_built, spec, trained)
    run, facts = onnx_runner(build, shape, files) if files else torch_runner(build())
    return MapNetwork(spec, run, tuple(facts["mean"]), tuple(facts["std"]))


def exported_maps(spec: FeatureSpec, trained: Mapping[str, Floats32] | None = None) -> bytes:
    """Return the network of :func:`map_network` as an ONNX file.

    It maps views (P, 3, size, size) to their maps. Errors are those of :func:`map_network`.

    Parameters
    ----------
    trained : for a fine-tuned network its tensors by name, of the network's shapes.
    """
    return export(_built(spec, trained), (spec.predictions, 3, spec.size, spec.size))


def is_kept(
    spec: FeatureSpec, folders: Sequence[Path], trained: Mapping[str, Floats32] | None = None
) -> bool:
    """Tell whether the same call of :func:`map_network` finds its exported network in a folder.

    Then it was built of ``trained`` before: these tensors have the shapes that it wants.
    """
    return any(file.is_file() for file in _files(spec, folders, trained))


def _files(
    spec: FeatureSpec, folders: Sequence[Path], trained: Mapping[str, Floats32] | None
) -> list[Path]:
    if not folders:
        return []
    name = f"model-{_key(spec, trained)[:16]}.onnx"
    return [folder / name for folder in folders]


def _key(spec: FeatureSpec, trained: Mapping[str, Floats32] | None) -> str:
    """Return SHA-256, in hexadecimal, of all that the exported network depends on."""
    digest = hashlib.sha256()
    for name, tensor in sorted((trained or {}).items()):
        digest.update(json.dumps([name, tensor.shape, str(tensor.dtype)]).encode())
        digest.update(tensor.tobytes())
    facts = {
        "pretrained": weights_digest(spec.backbone, spec.weights),
        "trained": None if trained is None else digest.hexdigest(),
        "backbone": spec.backbone,
        "size": spec.size,
        "levels": spec.levels,
        "predictions": spec.predictions,
        "version": MAPS_VERSION,
    }
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _built(spec: FeatureSpec, trained: Mapping[str, Floats32] | None) -> Built:
    from common.features.backbone import (
        FeaturesAsMap,
        SpatialMaps,
        input_statistics,
        load_backbone,
        pools_final_map,
    )

    mean, std = input_statistics(spec.backbone)
    facts = {"mean": mean, "std": std}
    if trained is None:
        return Built(SpatialMaps(load_backbone(spec.backbone, spec.weights), spec.levels), facts)
    from common.networks.network import shared_network

    # Its head is not part of the maps, but must fit.
    n_classes = len(trained["head.bias"]) if "head.bias" in trained else 2
    network = shared_network(spec.backbone, spec.weights, n_classes)
    try:
        network.load(trained)
    except RuntimeError as error:  # of tensors with other shapes
        raise DataError(
            f"the model's tensors do not fit its network ({reason(error)}); train it again"
        ) from error
    backbone = deepcopy(network.backbone).cpu()
    if pools_final_map(backbone):
        return Built(SpatialMaps(backbone, spec.levels), facts)
    return Built(FeaturesAsMap(backbone), facts)
