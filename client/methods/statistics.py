"""A site's answers before any training: how many images and lesions are in which group."""

import hashlib
import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from client.egress.questions import Question
from client.site import Site
from common.config.run import RunConfig
from common.data.dataset import SYNTHETIC_MARKER, Dataset
from common.data.groups import (
    NO_FILE,
    SOUND,
    TOO_SMALL,
    TWIN,
    UNREADABLE,
    filled,
    numbers,
    table_values,
    unlisted,
)
from common.data.image import Image
from common.data.image_measures import ImageMeasures, measure_image
from common.data.pictures import LEAST_SIDE
from common.errors import DataError
from common.statistics.data_counts import DataCounts, GroupedImages
from common.text import printable
from common.wire.messages import Value

_log = logging.getLogger(__name__)

_MOST_LINES = 50
"""Most lines of a site's log about what it counts as other or as a defect."""


def describe(site: Site) -> Mapping[str, Value]:
    """Describe this site's data as they are, whether or not they could be trained on."""
    images = _images(site)
    lesions = len(np.unique(_lesions(images)))
    enough = lesions >= site.least_group
    return {
        "classes": [True] * site.config.task.n_classes,
        "images": len(images) if enough else "",
        "lesions": lesions if enough else "",
        "synthetic": (site.folder / SYNTHETIC_MARKER).exists(),
        "fingerprint": site.keyed(hashlib.sha256(repr(images).encode()).hexdigest()),
    }


def prepare(dataset: Dataset, config: RunConfig, cache: Path) -> None:
    """Prepare nothing: images are read once, when they are counted."""


def answer(site: Site, question: Question) -> DataCounts:
    """Answer one question of the coordinator."""
    return DataCounts.measure(site.once(_grouped), site.config.task, site.least_group)


def _lesions(images: Sequence[Image]) -> list[str]:
    """Return the lesion of each image; rows without one count as one, which hides them best."""
    return [image.lesion_id for image in images]


def _grouped(site: Site) -> GroupedImages:
    """Read every image of a site once, and place it in the groups of every histogram."""
    task, images = site.config.task, _images(site)
    looks = _looks(Dataset(site.folder, images, site.scan.files))
    _log_unlisted(site)
    _log_defects(site, looks)
    rows = [table_values(image) | _values(look) for image, look in zip(images, looks, strict=True)]
    return GroupedImages(
        lesions=np.unique(_lesions(images), return_inverse=True)[1].astype(np.int64),
        numbers={name: numbers(name, [row[name] for row in rows], task) for name in rows[0]},
        filled=np.array([filled(image) for image in images], dtype=np.bool_),
    )


def _images(site: Site) -> tuple[Image, ...]:
    """Return the rows of a site's table, those that no training can use among them."""
    return (*site.scan.images, *site.scan.left_out)


class _Look(NamedTuple):
    """An image file: what it is like, or None, and what is wrong with it."""

    measures: ImageMeasures | None
    defect: str


def _looks(dataset: Dataset) -> list[_Look]:
    # Pillow lets go of the interpreter lock while it decodes: threads are enough.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        read = list(pool.map(lambda image: _read(dataset, image.image_id), dataset.images))
    same = Counter(digest for _, digest in read)
    return [
        _look(dataset, image.image_id, *each, same[each[1]] > 1)
        for image, each in zip(dataset.images, read, strict=True)
    ]


def _read(dataset: Dataset, image_id: str) -> tuple[ImageMeasures | None, bytes]:
    """Return what an image is like, and a digest of its bytes; b"" where it cannot be read."""
    try:
        data = dataset.read(image_id)
    except (DataError, KeyError):
        return None, b""
    return measure_image(data), hashlib.sha256(data).digest()


def _look(
    dataset: Dataset, image_id: str, found: ImageMeasures | None, digest: bytes, twin: bool
) -> _Look:
    if image_id not in dataset.files:
        return _Look(None, NO_FILE)
    if found is None:
        return _Look(None, UNREADABLE)
    if found.short_side < LEAST_SIDE:
        return _Look(found, TOO_SMALL)
    return _Look(found, TWIN if twin and digest else SOUND)


def _values(look: _Look) -> dict[str, str | float | None]:
    found = look.measures
    measured = found._asdict() if found else dict.fromkeys(ImageMeasures._fields)
    return {**measured, "defect": look.defect}


def _log_unlisted(site: Site) -> None:
    """Name to the site alone the texts of its table that count as other."""
    texts = unlisted(_images(site), site.config.task).most_common()
    for (histogram, text), count in texts[:_MOST_LINES]:
        _warn(site, f"{histogram} '{text[:200]}' is in no list and counts as other: {count} images")
    if len(texts) > _MOST_LINES:
        _warn(site, f"{len(texts) - _MOST_LINES} more texts are in no list and count as other")


def _log_defects(site: Site, looks: Sequence[_Look]) -> None:
    """Name to the site alone the images that have a defect."""
    pairs = zip(_images(site), looks, strict=True)
    bad = [f"{image.image_id}: {look.defect}" for image, look in pairs if look.defect != SOUND]
    for line in bad[:_MOST_LINES]:
        _warn(site, line)
    if len(bad) > _MOST_LINES:
        _warn(site, f"{len(bad) - _MOST_LINES} more images have a defect")


def _warn(site: Site, text: str) -> None:
    _log.warning("%s", printable(f"{site.name}: {text}"))
