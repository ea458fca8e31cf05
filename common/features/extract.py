"""Frozen features: a pretrained network's output for each image, computed once and kept.

Features are kept under the SHA-256 of the image's bytes, in a folder named after everything else
they depend on, so every experiment and every site on this machine shares them, whatever the
partition. Reading them from there imports neither PyTorch nor ONNX Runtime.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import islice, starmap
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from common.arrays import Floats32
from common.data.dataset import Dataset
from common.errors import ConfigError, DataError
from common.features.augment import (
    PREDICTION_VIEWS,
    Augmentation,
    augmented_view,
    normalise,
    prediction_view,
)
from common.features.pretrained import DEFAULT_BACKBONE, weights_digest
from common.features.store import read_rows, write_shard
from common.features.transform import Transform

if TYPE_CHECKING:
    from common.features.backbone import PooledFeatures
    from common.features.inference_engine import Engine

FEATURES_VERSION = 4
"""Raise it with every change of views, network or pooling, or old features are still used."""

SHARD_IMAGES = 256
"""Images in a shard: what a killed extraction loses at most."""

Row = TypeVar("Row", bound=NDArray[np.floating])

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FeatureSpec:
    """Everything that features depend on beside the image.

    Attributes
    ----------
    backbone : a convolutional network by timm's name.
    weights : its weights file; None for the default backbone's own.
    size : height and width of a view in pixels, at least 32.
    levels : how many of the last levels are pooled beside the final map, at least 0.
    views : number K of augmented views of each image, at least 0.
    predictions : number P of prediction views, 1 to 8: centre crops of several sizes, then
        mirrored.
    augmentation : how much the augmented views differ from the image.
    seed : seed of the augmented views, at least 0.
    transform : what is done to the image before.

    Raises
    ------
    ConfigError
        If a number is out of range.
    """

    backbone: str = DEFAULT_BACKBONE
    weights: Path | None = None
    size: int = 224
    levels: int = 3
    views: int = 0
    predictions: int = 2
    augmentation: Augmentation = field(default_factory=Augmentation)
    seed: int = 0
    transform: Transform = field(default_factory=Transform)

    def __post_init__(self) -> None:
        for name, least in {
            "size": 32,
            "levels": 0,
            "views": 0,
            "predictions": 1,
            "seed": 0,
        }.items():
            if getattr(self, name) < least:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least {least}")
        if self.predictions > PREDICTION_VIEWS:
            raise ConfigError(
                f"predictions is {self.predictions}; at most {PREDICTION_VIEWS} exist"
            )

    @cached_property
    def key(self) -> str:
        """SHA-256, in hexadecimal, of all that the features depend on, the weights' bytes too."""
        facts = {**asdict(self), "weights": self._digest, "version": FEATURES_VERSION}
        # What is switched off is not named, so that older features keep their key.
        facts["augmentation"] = {k: v for k, v in asdict(self.augmentation).items() if v}
        if not self.views:
            del facts["seed"], facts["augmentation"]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    @cached_property
    def network_name(self) -> str:
        """A file name for the network, without its views."""
        version = FEATURES_VERSION
        return f"{self._digest[:32]}-{self.backbone}-{self.levels}-{self.size}-v{version}"

    @cached_property
    def _digest(self) -> str:
        return weights_digest(self.backbone, self.weights)


@dataclass(frozen=True)
class Features:
    """Features of n images.

    Attributes
    ----------
    views : (n, K + P, D) float32, of the augmented views, then of the prediction views.
    augmented : number K of augmented views.
    """

    views: Floats32
    augmented: int

    @property
    def train(self) -> Floats32:
        """The augmented views (n, K, D); the prediction views (n, P, D) where K is 0."""
        return self.views[:, : self.augmented] if self.augmented else self.views

    @property
    def predict(self) -> Floats32:
        """The prediction views, shape (n, P, D)."""
        return self.views[:, self.augmented :]


class Content(NamedTuple):
    """An image to compute something of: the key of its bytes, and its number in a dataset."""

    key: str
    number: int

    def read(self, dataset: Dataset) -> bytes:
        """Return its file's bytes."""
        return dataset.read(dataset.images[self.number].image_id)


def extract(
    dataset: Dataset,
    spec: FeatureSpec,
    cache: Path,
    progress: bool = False,
    contents: Sequence[str] | None = None,
) -> Features:
    """Return the features of a dataset's images, in its order, computing those not in ``cache``.

    Parameters
    ----------
    cache : folder for features and exported networks, made if needed. Any number of processes may
        use it at once; after a kill the next call goes on from the last finished shard.
    progress : whether to show images done, rate and time left, where standard error is a terminal.
    contents : the images' :func:`content_keys`; None to compute them.

    Raises
    ------
    ConfigError
        If the backbone, its weights or ``levels`` cannot be used.
    DataError
        If an image cannot be read, before anything is computed, or ``cache`` cannot be written.
    """
    contents = content_keys(dataset) if contents is None else contents
    rows = read_rows(cache / spec.key, set(contents))
    # Equal images have equal features, so each content is computed once.
    missing = {content: i for i, content in enumerate(contents) if content not in rows}
    if missing:
        refuse_unreadable(dataset, list(missing.values()))
        rows |= _compute(dataset, missing, spec, cache, progress)
    return Features(np.stack([rows[content] for content in contents]), spec.views)


def content_keys(dataset: Dataset) -> list[str]:
    """Return the SHA-256 of each image's bytes, in hexadecimal."""
    return [_content(dataset.read(image.image_id)) for image in dataset.images]


def _content(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def refuse_unreadable(dataset: Dataset, indices: Sequence[int]) -> None:
    """Decode the images at ``indices``.

    Raises
    ------
    DataError
        If some cannot be used; the message names the first of them.
    """
    from common.data.check import unreadable

    offenders = unreadable(dataset, np.array(indices, dtype=np.int64))
    if offenders:
        first = ", ".join(f"{image_id} ({reason})" for image_id, reason in offenders[:3])
        raise DataError(
            f"{len(offenders)} images cannot be used: {first}{', ...' * (len(offenders) > 3)}; "
            "restore or remove them"
        )


def _compute(
    dataset: Dataset, missing: Mapping[str, int], spec: FeatureSpec, cache: Path, progress: bool
) -> dict[str, Floats32]:
    """Compute and keep the rows of the images at the indices in ``missing``."""
    from common.features.inference_engine import onnx_engine

    _log.info("computing features of %d images into %s", len(missing), cache / spec.key)
    file = cache / "networks" / f"{spec.network_name}.onnx"
    row = _row_function(spec, onnx_engine(lambda: _network(spec), spec.size, file))

    def rows(images: Iterable[Content], pool: Executor) -> Iterator[Sequence[Floats32]]:
        return pool.map(lambda image: [row(image.read(dataset), image.key)], images)

    return fill_shards(dataset, missing, rows, [cache / spec.key], progress)[0]


def fill_shards(
    dataset: Dataset,
    missing: Mapping[str, int],
    rows: Callable[[Iterable[Content], Executor], Iterator[Sequence[Row]]],
    folders: Sequence[Path],
    progress: bool,
) -> list[dict[str, Row]]:
    """Compute rows of images on all cores and keep them, a shard at a time.

    Parameters
    ----------
    missing : numbers of the images by content key.
    rows : gives of each image one row for each of ``folders``; its pool has one thread for each
        core.

    Returns
    -------
    For each folder the rows by content key, of the shape that ``rows`` gives them.
    """
    from common.features.inference_engine import one_thread_per_core

    computed: list[dict[str, Row]] = [{} for _ in folders]

    with (
        one_thread_per_core() as pool,
        tqdm(total=len(missing), unit="image", disable=None if progress else True) as bar,
    ):
        images = starmap(Content, missing.items())
        while shard := list(islice(images, SHARD_IMAGES)):
            done: list[dict[str, Row]] = [{} for _ in folders]
            for image, of_image in zip(shard, rows(shard, pool), strict=True):
                for into, row in zip(done, of_image, strict=True):
                    into[image.key] = row
                bar.update()
            for folder, into, part in zip(folders, computed, done, strict=True):
                write_shard(folder, part)
                into |= part
    return computed


def check_network(spec: FeatureSpec) -> None:
    """Build a spec's network, so that its errors show before images are read.

    The built-in network is known to work and is not built, because importing PyTorch takes seconds.

    Raises
    ------
    ConfigError
        If the backbone, its weights or ``levels`` cannot be used.
    DataError
        If the weights file cannot be read or does not fit the network.
    """
    own = (spec.backbone, spec.weights) == (DEFAULT_BACKBONE, None)
    if not own or spec.levels > FeatureSpec.levels:
        _network(spec)


def _network(spec: FeatureSpec) -> "PooledFeatures":
    from common.features.backbone import PooledFeatures, load_backbone

    return PooledFeatures(load_backbone(spec.backbone, spec.weights), spec.levels)


def _row_function(spec: FeatureSpec, engine: "Engine") -> Callable[[bytes, str], Floats32]:
    """Return the function from an image's bytes and content key to its features (K + P, D)."""
    from common.features.backbone import input_statistics

    mean, std = input_statistics(spec.backbone)

    def row(data: bytes, content: str) -> Floats32:
        image = spec.transform.image(data)
        views = [
            augmented_view(image, content, number, spec.seed, spec.size, spec.augmentation)
            for number in range(spec.views)
        ]
        views += [prediction_view(image, number, spec.size) for number in range(spec.predictions)]
        return np.stack([engine(normalise(view, mean, std)) for view in views])

    return row
