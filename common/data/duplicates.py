"""Near-duplicates: one picture under two names, encoded again or resized.

A picture's hash has 256 bits: the signs, against their median, of the lowest frequencies of its
grey values. Copies differ in few bits, other lesions in about half of them. What was rotated,
mirrored or cropped by a tenth is another picture here; so is another photograph of the lesion.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from common.arrays import Ints
from common.data.dataset import Dataset
from common.data.image import Image
from common.data.pictures import decode
from common.data.tables.lesions import preference
from common.errors import DataError
from common.features.extract import content_keys
from common.features.store import read_rows, write_shard

Hashes = NDArray[np.uint64]

MOST_DIFFERENT = 32
"""Bits of 256 by which copies of a picture may differ.

Of HAM10000 at 300x225 pixels one pair of different lesions' images is within it, which is one slide
scanned twice: `python -m simulations.experiments.duplicates`.
"""

_SIDE = 16  # frequencies along each side of a hash
_DECODED = 4 * _SIDE  # the pixels that they are computed of
WORDS = _SIDE * _SIDE // 64
"""Numbers of 64 bits in a hash."""

_FOLDER = "picture-hashes-v1"
_SHARD = 4096
_AT_ONCE = 4_000_000  # pairs that are compared together


def picture_hash(image: Pillow.Image) -> Hashes:
    """Return the hash of an image, (4,)."""
    from imagehash import phash  # it imports scipy

    bits = np.asarray(phash(image, hash_size=_SIDE).hash, dtype=np.bool_)
    return np.packbits(bits.ravel()).view(np.uint64)


def hash_of(data: bytes) -> Hashes:
    """Return the hash of an image file, (4,).

    Raises
    ------
    DataError
        If it cannot be decoded.
    """
    return picture_hash(decode(data, _DECODED))


def near_duplicates(hashes: Hashes) -> list[Ints]:
    """Group pictures that are linked by near-duplicates; memory grows with n only.

    Parameters
    ----------
    hashes : (n, 4) of pictures.

    Returns
    -------
    The numbers (m,) of the pictures of each group of two or more, ascending.
    """
    distinct, place = np.unique(hashes, axis=0, return_inverse=True)
    groups = np.arange(len(distinct))
    rows = max(1, _AT_ONCE // max(1, len(distinct)))
    for first in range(0, len(distinct), rows):
        block = distinct[first : first + rows, None] ^ distinct[None, first:]
        near = np.bitwise_count(block).sum(axis=2, dtype=np.uint16) <= MOST_DIFFERENT
        one, other = np.nonzero(near)
        if len(one) > len(near):  # more than each with itself
            groups = _linked(groups, one + first, other + first)
    return _members(groups[place.ravel()])


def nearest(hashes: Hashes, others: Hashes) -> tuple[Ints, Ints]:
    """Find the nearest of other pictures for each of some; memory grows with n and m only.

    Parameters
    ----------
    hashes : (n, 4) of pictures.
    others : (m, 4) of others, at least one.

    Returns
    -------
    The numbers (n,) of the nearest, and in how many bits (n,) they differ.
    """
    found = [np.zeros((0, 2), dtype=np.int64)]
    rows = max(1, _AT_ONCE // len(others))
    for first in range(0, len(hashes), rows):
        block = hashes[first : first + rows, None] ^ others[None]
        apart = np.bitwise_count(block).sum(axis=2, dtype=np.int64)
        found.append(np.column_stack([apart.argmin(axis=1), apart.min(axis=1)]))
    both = np.concatenate(found)
    return both[:, 0], both[:, 1]


def join(images: Sequence[Image], groups: Iterable[Ints]) -> tuple[Image, ...]:
    """Make one lesion of all lesions that a group of near-duplicates links.

    Its images get the lesion and the split of the first lesion by name, those that a table names
    before others.

    Parameters
    ----------
    groups : numbers (m,) of images that are near-duplicates.

    Raises
    ------
    DataError
        If lesions with different diagnoses were one.
    """
    joined = list(images)
    for members in _joined_lesions(images, groups):
        first = min((images[i] for i in members), key=lambda i: preference(i.lesion_id))
        if other := [images[i] for i in members if images[i].dx != first.dx]:
            raise DataError(
                f"{first.image_id} ({first.dx}) and {other[0].image_id} ({other[0].dx}) are copies "
                "of one picture, or of one lesion's; correct a diagnosis or remove one of them"
            )
        for i in members:
            joined[i] = replace(images[i], lesion_id=first.lesion_id, split=first.split)
    return tuple(joined)


def open_joined(folder: str | Path, cache: Path, *, diagnosed: bool = True) -> Dataset:
    """Open a folder; where lesions are unknown, those that share a picture are one.

    Where a table names all lesions, they are as it says: `fedderm data check` names copies.

    Parameters
    ----------
    cache : folder for the hashes of pictures.
    diagnosed : as of :meth:`Dataset.open`.

    Raises
    ------
    DataError
        As of :meth:`Dataset.open` and :func:`joined`.
    """
    dataset = Dataset.open(folder, diagnosed=diagnosed)
    if not dataset.unknown_lesions:
        return dataset
    return joined(dataset, cache.expanduser(), content_keys(dataset))


def joined(dataset: Dataset, cache: Path, contents: Sequence[str]) -> Dataset:
    """Return a dataset in which lesions that share a picture are one.

    Parameters
    ----------
    cache : folder for the hashes, made if needed.
    contents : the SHA-256 of each image's bytes, in hexadecimal.

    Raises
    ------
    DataError
        If an image cannot be decoded, or lesions that share a picture differ in diagnosis.
    """
    groups = near_duplicates(picture_hashes(dataset, cache, contents))
    return replace(dataset, images=join(dataset.images, groups))


def picture_hashes(dataset: Dataset, cache: Path, contents: Sequence[str]) -> Hashes:
    """Return the hashes of a dataset's images, (n, 4), computing those not in ``cache``.

    Parameters and errors are those of :func:`joined`.
    """
    folder = cache / _FOLDER
    rows = dict(cast(Mapping[str, Hashes], read_rows(folder, set(contents))))
    missing = {content: i for i, content in enumerate(contents) if content not in rows}
    names = [dataset.images[i].image_id for i in missing.values()]
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow lets go of the interpreter's lock
        found = dict(zip(missing, pool.map(lambda name: _hash(dataset, name), names), strict=True))
    keys = list(found)
    for start in range(0, len(keys), _SHARD):
        write_shard(folder, {key: found[key] for key in keys[start : start + _SHARD]})
    rows |= found
    return np.stack([rows[content] for content in contents]).reshape(-1, WORDS)


def _hash(dataset: Dataset, image_id: str) -> Hashes:
    try:
        return hash_of(dataset.read(image_id))
    except DataError as error:
        raise DataError(f"{dataset.folder}: {image_id} ({error})") from error


def _joined_lesions(images: Sequence[Image], groups: Iterable[Ints]) -> list[Ints]:
    """Return the images of each set of several lesions that near-duplicates link."""
    _, lesion = np.unique([image.lesion_id for image in images], return_inverse=True)
    own = np.arange(lesion.max(initial=-1) + 1)
    linked = own
    for members in groups:
        linked = _linked(linked, lesion[members[:-1]], lesion[members[1:]])
    lesions = {int(i) for each in _members(linked) for i in each}
    several = np.isin(lesion, list(lesions))
    labels = linked[lesion]
    return [np.flatnonzero(several & (labels == label)) for label in np.unique(labels[several])]


def _linked(groups: Ints, one: Ints, other: Ints) -> Ints:
    """Return the groups (n,) of things after the things ``one`` and ``other`` (m,) are linked."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n = len(groups)
    first, second = groups[one], groups[other]
    graph = coo_array((np.ones(len(first), dtype=np.bool_), (first, second)), shape=(n, n))
    return np.asarray(connected_components(graph, directed=False)[1][groups], dtype=np.int64)


def _members(groups: Ints) -> list[Ints]:
    """Return the members of each group of two or more, in the order of their first."""
    order = np.argsort(groups, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(groups[order])) + 1)
    return sorted((part for part in parts if len(part) > 1), key=lambda part: int(part[0]))
