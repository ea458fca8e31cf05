"""Activations at the cut of a network's frozen part, kept on disk in half precision.

While a stage leaves the trunk frozen, the trunk's output does not change. It is computed once for
several augmented views of each image, and the open part trains on it.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.arrays import Floats32
from common.data.dataset import Dataset
from common.features.augment import augmented_view, normalise
from common.features.backbone import input_statistics
from common.features.extract import Content, FeatureSpec, fill_shards, refuse_unreadable
from common.features.store import read_rows
from common.finetune.plan import Item
from common.networks.inference import outputs_of_views
from common.networks.network import Network, trunk

Halves = NDArray[np.float16]


class Views:
    """Augmented views of a site's images, ready for a network.

    Parameters
    ----------
    dataset : the images.
    contents : the key of each image's bytes.
    spec : backbone, size, augmentation and seed.
    """

    def __init__(self, dataset: Dataset, contents: Sequence[str], spec: FeatureSpec) -> None:
        self._dataset, self._contents, self._spec = dataset, contents, spec

    @cached_property
    def _statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        return input_statistics(self._spec.backbone)

    def load(self, item: Item) -> Floats32:
        """Return one augmented view (3, size, size)."""
        data = self._dataset.read(self._dataset.images[item.image].image_id)
        return self.of(data, self._contents[item.image], item.view)

    def of(self, data: bytes, content: str, number: int) -> Floats32:
        """Return augmented view ``number`` of an image's bytes, (3, size, size)."""
        spec = self._spec
        image = spec.transform.image(data)
        view = augmented_view(image, content, number, spec.seed, spec.size, spec.augmentation)
        return normalise(view, *self._statistics)


def activations(
    network: Network,
    stages: Sequence[str],
    dataset: Dataset,
    contents: Sequence[str],
    spec: FeatureSpec,
    cache: Path,
) -> dict[str, Halves]:
    """Return the pretrained activations at the cuts of ``stages``, computing what is missing.

    Parameters
    ----------
    network : gets its pretrained weights back if anything is missing: what is kept outlives the
        run, and another stage may have trained the frozen part.
    stages : names of stages that leave a part frozen; all are computed in one pass.
    spec : its ``views`` augmented views of each image are taken.
    cache : folder shared by all sites of this machine.

    Returns
    -------
    For each stage (n, views, ...) float16.

    Raises
    ------
    DataError
        If an image cannot be read or ``cache`` cannot be written.
    """
    folders = [cache / _key(spec, stage) for stage in stages]
    rows = [read_rows(folder, set(contents)) for folder in folders]
    missing = {c: i for i, c in enumerate(contents) if any(c not in kept for kept in rows)}
    if missing:
        refuse_unreadable(dataset, list(missing.values()))
        network.load({})
        views, frozen = Views(dataset, contents, spec), trunk(network, stages)

        def of_image(image: Content) -> Floats32:
            data = image.read(dataset)
            return np.stack([views.of(data, image.key, number) for number in range(spec.views)])

        def compute(images: Iterable[Content], pool: Executor) -> Iterator[Sequence[Halves]]:
            for values in outputs_of_views(frozen, images, of_image, pool):
                yield [value.half().contiguous().numpy() for value in values]

        for kept, new in zip(
            rows, fill_shards(dataset, missing, compute, folders, progress=True), strict=True
        ):
            kept |= new
    arrays = (np.stack([kept[c] for c in contents]) for kept in rows)
    return dict(zip(stages, arrays, strict=True))


def _key(spec: FeatureSpec, stage: str) -> str:
    """Return a name for activations, which do not depend on pooling and prediction."""
    views = replace(spec, levels=0, predictions=1)
    return hashlib.sha256(f"{views.key}\n{stage}".encode()).hexdigest()
