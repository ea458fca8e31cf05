"""How far copies of a picture are from it, and how near pictures of different lesions are.

``python -m simulations.experiments.duplicates DIR`` hashes the images of ``DIR``, makes copies of
every tenth and prints in Markdown: the share of copies that are found at the threshold, and by
keyed tokens as across sites; the pairs of lesions that are as near as copies, or nearly so; and the
pairs of lesions that tokens take for copies.
"""

import io
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image as Pillow

from common.arrays import Ints
from common.data.dataset import Dataset
from common.data.duplicates import MOST_DIFFERENT, Hashes, hash_of
from common.data.picture_tokens import LEAST_EQUAL, shared, tokens
from common.errors import DataError
from common.formats import markdown_table

_EVERY = 10
_KEY = b"a secret of this benchmark alone"
_BLOCK = 128
_DISTANCES = (8, 16, 24, MOST_DIFFERENT, 36, 40, 44, 48, 56, 64)


def copies(image: Pillow.Image) -> Iterator[tuple[str, bytes]]:
    """Yield what a copy is and its file."""
    width, height = image.size
    half, double = (width // 2, height // 2), (2 * width, 2 * height)
    yield "JPEG of quality 50", _file(image, quality=50)
    yield "JPEG of quality 30", _file(image, quality=30)
    yield "WebP of quality 40", _file(image, "WEBP", quality=40)
    yield "half the size, quality 85", _file(image.resize(half), quality=85)
    yield (
        "a third of the size, quality 60",
        _file(image.resize((width // 3, height // 3)), quality=60),
    )
    yield "twice the size, quality 90", _file(image.resize(double), quality=90)
    yield "square, quality 85", _file(image.resize((224, 224)), quality=85)
    yield "a tenth brighter", _file(image.point(lambda value: min(255, int(value * 1.1))))
    yield "grey", _file(image.convert("L"), quality=85)
    for share in (100, 40):
        edges = (width // share, height // share, width - width // share, height - height // share)
        yield f"without {1 / share:.1%} at each edge", _file(image.crop(edges), quality=85)


def distances(hashes: Hashes, lesions: Ints) -> tuple[Ints, Ints]:
    """Count pairs of pictures by their distance in bits, (257,): of one lesion, of different ones.

    Parameters
    ----------
    hashes : (n, 4) of the pictures.
    lesions : (n,) number of each picture's lesion.
    """
    same, different = np.zeros(257, dtype=np.int64), np.zeros(257, dtype=np.int64)
    numbers = np.arange(len(hashes))
    for first in range(0, len(hashes), _BLOCK):
        block = slice(first, first + _BLOCK)
        bits = np.bitwise_count(hashes[block, None] ^ hashes).sum(axis=2, dtype=np.int64)
        later = numbers[block, None] < numbers
        together = lesions[block, None] == lesions
        same += np.bincount(bits[later & together], minlength=257)
        different += np.bincount(bits[later & ~together], minlength=257)
    return same, different


def main(folder: Path) -> None:
    """Print the tables."""
    dataset = Dataset.open(folder)
    ids = [image.image_id for image in dataset.images]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        hashes = np.stack(list(pool.map(lambda name: hash_of(dataset.read(name)), ids)))
        found: dict[str, list[Hashes]] = {}
        files = (dataset.read(name) for name in ids[::_EVERY])
        for apart in pool.map(_copied, files):
            for kind, other in apart:
                found.setdefault(kind, []).append(other)
    own = tokens(hashes, _KEY)
    rows = [
        (kind, *_found(hashes[::_EVERY], own[::_EVERY], np.stack(others)))
        for kind, others in found.items()
    ]
    print(f"{len(ids[::_EVERY])} copies of each kind; found within {MOST_DIFFERENT} bits of 256\n")
    print(markdown_table(("copy", "found", "by tokens", "median bits", "most bits"), rows))
    same, different = np.cumsum(distances(hashes, dataset.by_lesion.index), axis=1)
    print(f"\n{same[-1]} pairs of one lesion's images, {different[-1]} of different lesions'\n")
    near = [(bits, same[bits], different[bits]) for bits in _DISTANCES]
    print(markdown_table(("within bits", "of one lesion", "of different lesions"), near))
    print(f"\n{_taken(own, dataset.by_lesion.index)}")


def _found(hashes: Hashes, own: Ints, copies: Hashes) -> tuple[object, ...]:
    """Return the shares of copies that are found, and by how many bits they differ.

    Parameters
    ----------
    hashes, copies : hashes (n, 4) of pictures and of their copies.
    own : the pictures' tokens, (n, DRAWS).
    """
    bits = np.bitwise_count(hashes ^ copies).sum(axis=1, dtype=np.int64)
    equal = (tokens(copies, _KEY) == own).sum(axis=1)
    shares = (np.mean(bits <= MOST_DIFFERENT), np.mean(equal >= LEAST_EQUAL))
    return (*(f"{share:.4f}" for share in shares), np.median(bits), bits.max())


def _taken(own: Ints, lesions: Ints) -> str:
    """Say which pairs of different lesions' pictures have tokens in common, of those of two sites.

    Parameters
    ----------
    own : tokens (n, DRAWS) of pictures.
    lesions : (n,) number of each picture's lesion.
    """
    site = lesions % 2 == 1
    pairs = shared(own[site], own[~site])
    equal = (own[site][pairs[:, 0]] == own[~site][pairs[:, 1]]).sum(axis=1)
    return (
        f"two sites of {site.sum()} and {(~site).sum()} pictures, no lesion at both: "
        f"{len(pairs)} pairs of pictures are taken for copies, by {equal.tolist()} equal tokens"
    )


def _copied(data: bytes) -> list[tuple[str, Hashes]]:
    with Pillow.open(io.BytesIO(data)) as image:
        return [(kind, hash_of(copy)) for kind, copy in copies(image.convert("RGB"))]


def _file(image: Pillow.Image, kind: str = "JPEG", **how: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **how)
    return buffer.getvalue()


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except DataError as error:
        sys.exit(str(error))
