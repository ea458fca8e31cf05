"""What an image is like, in three numbers: its size, brightness and sharpness."""

from typing import NamedTuple

import numpy as np
from PIL import Image as Pillow

from common.data.pictures import LEAST_SIDE, decode, sides
from common.errors import DataError

_SIDE = 224
"""Pixels of the shorter side to which images are reduced, so that sharpness can be compared."""


class ImageMeasures(NamedTuple):
    """What an image is like.

    Attributes
    ----------
    short_side : pixels of its shorter side, as it is on disk.
    brightness : mean grey value, from 0, black, to 1, white; None of an image that is too small.
    sharpness : variance of the Laplacian of its grey values, 0 to 255; 0 where nothing has an edge,
        None of an image that is too small. After Pech-Pacheco et al., "Diatom autofocusing in
        brightfield microscopy", ICPR (2000).
    """

    short_side: int
    brightness: float | None
    sharpness: float | None


def measure_image(data: bytes) -> ImageMeasures | None:
    """Measure an image file that is decoded in full; None if it cannot be."""
    try:
        side = min(sides(data))
        if side < LEAST_SIDE:
            return ImageMeasures(side, None, None)
        grey = _reduced(decode(data, 2 * _SIDE).convert("L"))
    except DataError:
        return None
    values = np.asarray(grey, dtype=np.float32)
    return ImageMeasures(side, float(values.mean()) / 255, _sharpness(values))


def _reduced(image: Pillow.Image) -> Pillow.Image:
    factor = _SIDE / min(image.size)
    if factor >= 1:
        return image
    size = tuple(max(1, round(side * factor)) for side in image.size)
    return image.resize((size[0], size[1]), Pillow.Resampling.BOX, reducing_gap=2.0)


def _sharpness(grey: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> float:
    inner = grey[1:-1, 1:-1]
    beside = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    return float((beside - 4 * inner).var())
