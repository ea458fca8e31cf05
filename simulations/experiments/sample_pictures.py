"""Photographs that show no lesion: samples that packages bring, and skin beside lesions."""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from common.arrays import Bools
from common.data.dataset import MASK_FOLDER, Dataset
from simulations.experiments.drawn_pictures import SIZE

SAMPLES: Mapping[str, tuple[str, ...]] = {
    "cat": ("chelsea.png",),
    "flower": ("flower.jpg",),
    "photographs": (
        *("astronaut.png", "coffee.png", "rocket.jpg", "motorcycle_left.png"),
        *("china.jpg", "hubble_deep_field.jpg"),
    ),
    "grey photographs": (
        *("camera.png", "clock_motion.png", "coins.png", "moon.png", "page.png", "text.png"),
    ),
    "textures": ("brick.png", "grass.png", "gravel.png"),
    "drawings": ("color.png", "logo.png", "horse.png", "phantom.png", "chessboard_RGB.png"),
    "retina": ("retina.jpg",),
    "histology": ("ihc.png",),
    "cell": ("cell.png",),
}
"""Files of scikit-image and scikit-learn (``china.jpg``, ``flower.jpg``) by kind."""

_LEAST_WIDTH = 100
_CORNERS = np.arange(0.5, 0.24, -0.025)
"""Sides of the corners tried, as shares of the image's."""

_MARGIN = 15  # pixels, odd: how far a mask is widened, because lesions fade into skin
_DARK = 70
"""Grey value in [0, 255]; a corner with darker pixels has a dark rim or hair."""


def crop(kind: str, rng: np.random.Generator) -> Image.Image:
    """Return a part of one of a kind's pictures, at random, mirrored or not."""
    names = SAMPLES[kind]
    image = _sample(names[rng.integers(len(names))])
    most = min(image.width / 4, image.height / 3)
    least = min(1.0, max(0.25, _LEAST_WIDTH / (4 * most)))
    unit = most * rng.uniform(least, 1.0)
    width, height = round(4 * unit), round(3 * unit)
    left, top = (
        int(rng.integers(0, room + 1)) for room in (image.width - width, image.height - height)
    )
    box = (left, top, left + width, top + height)
    part = image.resize(SIZE, Image.Resampling.BICUBIC, box)
    return ImageOps.mirror(part) if rng.random() < 0.5 else part


def skin(dataset: Dataset) -> Iterator[tuple[str, Image.Image]]:
    """Yield skin without lesion with its kind: the largest corner of an image beside its mask.

    Each corner is enlarged, which makes it blurred, and, where it is not dark, tiled by its mirror
    images at its own resolution. An image without such a corner yields nothing.
    """
    for image in dataset.images:
        mask_file = dataset.folder / MASK_FOLDER / f"{image.image_id}_segmentation.png"
        box = _free_corner(_widened(mask_file))
        if box is None:
            continue
        corner = Image.open(BytesIO(dataset.read(image.image_id))).convert("RGB").crop(box)
        enlarged = corner.resize(SIZE, Image.Resampling.BICUBIC)
        if np.percentile(np.asarray(corner.convert("L")), 3) < _DARK:
            yield "skin with a dark rim or hair", enlarged
        else:
            yield "skin, enlarged", enlarged
            yield "skin, tiled", _tiled(corner)


@lru_cache
def _sample(name: str) -> Image.Image:
    import skimage.data
    import sklearn.datasets

    folders = (
        Path(skimage.data.__file__).parent,
        Path(sklearn.datasets.__file__).parent / "images",
    )
    file = next(folder / name for folder in folders if (folder / name).exists())
    return Image.open(file).convert("RGB")


def _widened(mask_file: Path) -> Bools:
    mask = Image.open(mask_file).convert("L").filter(ImageFilter.MaxFilter(_MARGIN))
    return np.asarray(mask) > 0


def _free_corner(mask: Bools) -> tuple[int, int, int, int] | None:
    height, width = mask.shape
    for share in _CORNERS:
        w, h = round(width * share), round(height * share)
        for left in (0, width - w):
            for top in (0, height - h):
                if not mask[top : top + h, left : left + w].any():
                    return left, top, left + w, top + h
    return None


def _tiled(corner: Image.Image) -> Image.Image:
    pixels = np.asarray(corner)
    row = np.concatenate([pixels, pixels[:, ::-1]], axis=1)
    block = np.concatenate([row, row[::-1]])
    repeats = [-(-want // have) for want, have in zip(SIZE[::-1], block.shape[:2], strict=True)]
    return Image.fromarray(np.tile(block, (*repeats, 1))[: SIZE[1], : SIZE[0]])
