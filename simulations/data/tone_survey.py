"""Angles of a data set's images by both ways and under each colour constancy; how they agree."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from typing import get_args

import numpy as np
from PIL import Image as Pillow

from common.arrays import Bools, Floats
from common.data.dataset import MASK_FOLDER, Dataset
from common.errors import DataError
from common.features.transform import Colour, Transform, balanced
from common.storage.reading import read_bytes
from simulations.data.skin_tone import CATEGORIES, WAYS, category

COLOURS: tuple[Colour, ...] = get_args(Colour)


@dataclass(frozen=True)
class Tones:
    """Angles of n images in degrees; nan where a picture shows no skin.

    Attributes
    ----------
    angles : (colours, ways, n).
    masks : number of images with a lesion's mask.
    """

    angles: Floats
    masks: int


def measure(dataset: Dataset) -> Tones:
    """Measure every image of a data set.

    Raises
    ------
    DataError
        If an image or a mask cannot be read.
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = list(pool.map(lambda row: _of_image(dataset, row.image_id), dataset.images))
    angles = np.array([each for each, _ in found], dtype=np.float64)
    return Tones(np.moveaxis(angles, 0, -1), sum(mask for _, mask in found))


def spread(tones: Tones) -> Iterator[list[str]]:
    """Yield for each colour constancy and way the quartiles and the images in each category.

    Last stand those above 90 degrees, whose skin is bluish: the published angle calls them dark.
    """
    for colour, by_way in zip(COLOURS, tones.angles, strict=True):
        for way, angles in zip(WAYS, by_way, strict=True):
            known = angles[~np.isnan(angles)]
            counts = np.bincount(category(known), minlength=len(CATEGORIES))
            middle = np.percentile(known, [25, 50, 75]) if len(known) else np.full(3, np.nan)
            yield [
                colour,
                way,
                *(f"{each:.1f}" for each in middle),
                *map(str, counts),
                str(np.sum(known > 90)),
            ]


def agreement(tones: Tones) -> Iterator[list[str]]:
    """Yield how two ways agree under each constancy, and each way with itself without it.

    Weighted kappa has quadratic weights, over the categories; the correlation is Spearman's.
    """
    for k, colour in enumerate(COLOURS):
        yield ["pixels and patches", colour, *_agree(*tones.angles[k])]
    for way, none, *others in zip(WAYS, *tones.angles, strict=True):
        for colour, angles in zip(COLOURS[1:], others, strict=True):
            yield [way, f"none and {colour}", *_agree(none, angles)]


def within_lesions(dataset: Dataset, angles: Floats) -> tuple[float, float, int]:
    """Return the median difference of two images of a lesion, and of two lesions, in degrees.

    Parameters
    ----------
    angles : (n,) those of the data set's images.

    Returns
    -------
    The two medians, and the number of pairs inside lesions; nan where there is none.
    """
    known = ~np.isnan(angles)
    index, angles = dataset.by_lesion.index[known], angles[known]
    first, second = np.triu_indices(len(angles), 1)
    differences, same = np.abs(angles[first] - angles[second]), index[first] == index[second]
    inside, outside = (
        float(np.median(part)) if len(part) else np.nan
        for part in (differences[same], differences[~same])
    )
    return inside, outside, int(same.sum())


def _agree(first: Floats, second: Floats) -> list[str]:
    from scipy.stats import spearmanr
    from sklearn.metrics import cohen_kappa_score

    known = ~(np.isnan(first) | np.isnan(second))
    if known.sum() < 2:
        return ["", "", ""]
    a, b = category(first[known]), category(second[known])
    every = range(len(CATEGORIES))
    one = len({*a, *b}) == 1  # then chance agrees as well, and kappa is undefined
    kappa = np.nan if one else cohen_kappa_score(a, b, labels=every, weights="quadratic")
    rank = spearmanr(first[known], second[known]).statistic
    return [f"{np.mean(a == b):.2f}", f"{kappa:.2f}", f"{rank:.2f}"]


def _of_image(dataset: Dataset, image_id: str) -> tuple[list[list[float]], bool]:
    plain = Transform().image(dataset.read(image_id))
    lesion = _mask(dataset, image_id, plain.size)
    angles = [
        [
            np.nan if (found := way(balanced(plain, colour), lesion)) is None else found
            for way in WAYS.values()
        ]
        for colour in COLOURS
    ]
    return angles, lesion is not None


def _mask(dataset: Dataset, image_id: str, size: tuple[int, int]) -> Bools | None:
    """Return the mask (height, width) of a lesion, None if none lies beside the images."""
    file = dataset.folder / MASK_FOLDER / f"{image_id}_segmentation.png"
    if not file.is_file():
        return None
    try:
        mask = Pillow.open(BytesIO(read_bytes(file))).convert("L")
    except (OSError, ValueError) as error:
        raise DataError(f"{file} is no mask ({error}); restore the file") from error
    return np.asarray(mask.resize(size, Pillow.Resampling.NEAREST)) > 127
