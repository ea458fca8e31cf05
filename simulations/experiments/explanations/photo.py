"""Test images whose lesions were outlined, and the places in them where evidence may lie."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from common.arrays import Bools
from common.data.dataset import MASK_FOLDER, Dataset
from common.data.image import Image
from common.errors import DataError
from common.features.augment import crop_box
from common.features.transform import Transform
from common.storage.reading import read_bytes

_DARK = 60  # brightest channel of the black around a round field of view, of 255
_INK = 40  # how much bluer than red ink is; grey skin is too, by less
_THIN = 9  # pixels across which a dark line is thinner than that, at 300 x 225
_STEP = 20  # how much darker than its surroundings a line is, of 255


@dataclass(frozen=True)
class Photo:
    """An image as the model decodes it, and its lesion.

    Attributes
    ----------
    row : its row of the metadata table.
    pixels : (height, width, 3) red, green and blue.
    lesion : (height, width) whether a pixel is of the lesion.
    """

    row: Image
    pixels: NDArray[np.uint8]
    lesion: Bools

    @classmethod
    def read(cls, dataset: Dataset, row: Image, resolution: int) -> Self:
        """Read an image and its mask, with ``resolution`` pixels on the short side at most.

        Raises
        ------
        DataError
            If one cannot be read.
        """
        # In its own colours: what is made of these pixels is judged as a file again.
        image = Transform(resolution).image(dataset.read(row.image_id))
        file = _mask(dataset, row)
        try:
            mask = Pillow.open(io.BytesIO(read_bytes(file))).convert("L")
        except (OSError, ValueError) as error:
            raise DataError(f"{file} is no mask ({error}); restore the file") from error
        lesion = np.asarray(mask.resize(image.size, Pillow.Resampling.NEAREST)) > 0
        return cls(row, np.asarray(image), lesion)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        height, width = self.lesion.shape
        return width, height

    @cached_property
    def skin_colour(self) -> NDArray[np.uint8]:
        """Red, green and blue (3,): the median outside the lesion, which hairs do not move."""
        skin = self.pixels[~self.lesion] if not self.lesion.all() else self.pixels.reshape(-1, 3)
        return np.asarray(np.median(skin, axis=0), dtype=np.uint8)

    @cached_property
    def places(self) -> Mapping[str, Bools]:
        """Kinds of places by name, (height, width) each; they may overlap."""
        outside = ~self.lesion
        red, _, blue = np.moveaxis(self.pixels.astype(int), -1, 0)
        dark, ink = self.pixels.max(axis=2) < _DARK, blue - red > _INK
        return {
            "lesion": self.lesion,
            "rim, outside": _grown(self.lesion, min(self.size) // 20) & outside,
            "farther outside": ~_grown(self.lesion, min(self.size) // 20),
            "corners": _corners(*self.size),
            "dark edge": dark & outside & _corners(*self.size),
            "hairs and ruler marks": _lines(self.pixels) & outside & ~ink,
            "blue ink": ink & outside,
        }

    def png(self) -> bytes:
        """Return the image as a PNG file."""
        file = io.BytesIO()
        Pillow.fromarray(self.pixels).save(file, "PNG", compress_level=1)
        return file.getvalue()


def one_a_lesion(dataset: Dataset, number: int, seed: int) -> Dataset:
    """Return images that have a mask, one a lesion, by chance.

    Each diagnosis has as many, until it has no more lesions.

    Parameters
    ----------
    number : of images, if there are as many lesions.
    """
    has_mask = [_mask(dataset, row).is_file() for row in dataset.images]
    dataset = dataset.select(np.array(has_mask, dtype=np.bool_))
    order = np.random.default_rng(seed).permutation(len(dataset))
    chosen = order[np.sort(np.unique(dataset.lesions[order], return_index=True)[1])]
    labels = dataset.labels[chosen]
    rank = [int((labels[:place] == label).sum()) for place, label in enumerate(labels)]
    return dataset.select(np.sort(chosen[np.argsort(rank, kind="stable")[:number]]))


def _mask(dataset: Dataset, row: Image) -> Path:
    return dataset.folder / MASK_FOLDER / f"{row.image_id}_segmentation.png"


def _corners(width: int, height: int) -> Bools:
    """Return what lies in the largest view, but not in the circle inscribed in it."""
    left, top, right, bottom = crop_box((width, height), 0)
    y, x = np.mgrid[:height, :width] + 0.5
    square = (x > left) & (x < right) & (y > top) & (y < bottom)
    far = np.hypot(x - (left + right) / 2, y - (top + bottom) / 2) > (right - left) / 2
    return np.asarray(square & far)


def _grown(inside: Bools, pixels: int) -> Bools:
    from scipy.ndimage import distance_transform_edt

    return np.asarray(distance_transform_edt(~inside) <= pixels)


def _lines(pixels: NDArray[np.uint8]) -> Bools:
    """Find hairs and ruler marks: what is darker than its surroundings, and thin."""
    from scipy.ndimage import black_tophat

    grey = pixels.mean(axis=2)
    return np.asarray(black_tophat(grey, size=(_THIN, _THIN)) > _STEP)
