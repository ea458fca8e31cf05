"""What images look like to a pretrained network, computed once and kept on disk."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from pathlib import Path

import numpy as np

from common.answers.appearance import SIZE, appearance
from common.arrays import Floats, Floats32
from common.data.dataset import Dataset
from common.features.extract import Content, FeatureSpec, fill_shards, refuse_unreadable
from common.features.store import read_rows
from common.networks.spatial_maps import MAPS_VERSION, Maps, map_network

LEVELS = 3
"""How many of the last levels give the maps at strides of 8 and of 16 pixels, and one more."""


def stem_spec(spec: FeatureSpec) -> FeatureSpec:
    """Return what an image's look depends on: the pretrained network and one view."""
    return replace(spec, levels=LEVELS, views=0, predictions=1)


def appearance_of(maps: Maps, levels: int = LEVELS) -> Floats:
    """Return what an image looks like, (SIZE,).

    Parameters
    ----------
    maps : of the pretrained network, by level (P, channels, height, width); of the P views the
        first is taken, which shows most.
    levels : how many of the network's last levels they are, at least ``LEVELS``.
    """
    fine, coarse = maps[levels - LEVELS], maps[levels - LEVELS + 1]
    return appearance(fine[0], coarse[0])


def appearance_key(spec: FeatureSpec) -> str:
    """Return the name of the folder in a cache that holds the looks of images."""
    text = f"{stem_spec(spec).key}\nappearance {MAPS_VERSION}"
    return hashlib.sha256(text.encode()).hexdigest()


def appearances(
    dataset: Dataset, spec: FeatureSpec, cache: Path, contents: Sequence[str]
) -> Floats32:
    """Return what a dataset's images look like, (n, SIZE), computing what is not in ``cache``.

    Parameters
    ----------
    spec : backbone, weights and size.
    contents : (n,) the SHA-256 of each image's bytes.

    Raises
    ------
    ConfigError
        If the backbone or its weights cannot be used.
    DataError
        If an image cannot be read, or ``cache`` cannot be written.
    """
    folder = cache / appearance_key(spec)
    rows = read_rows(folder, set(contents))
    missing = {content: i for i, content in enumerate(contents) if content not in rows}
    if missing:
        refuse_unreadable(dataset, list(missing.values()))
        network = map_network(stem_spec(spec), [cache / "networks"])

        def of_image(image: Content) -> list[Floats32]:
            return [appearance_of(network.maps(image.read(dataset))).astype(np.float32)]

        def compute(images: Iterable[Content], pool: Executor) -> Iterator[Sequence[Floats32]]:
            return pool.map(of_image, images)

        rows |= fill_shards(dataset, missing, compute, [folder], progress=True)[0]
    found = [rows[content] for content in contents]
    return np.array(found, dtype=np.float32).reshape(len(found), SIZE)
