"""Skin tone as pictures show it, exploratory: the individual typology angle by two published ways.

The angle depends on light, camera and oil as much as on skin; published ways to compute it disagree
strongly on dermoscopic images [1]_. It tells about a data set, and about no person.

References
----------
.. [1] Kalb et al., "Revisiting Skin Tone Fairness in Dermatological Lesion Classification", MICCAI
   workshop FAIMI 2023, arXiv:2308.09640.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from common.arrays import Bools, Floats

CATEGORIES = ("dark", "brown", "tan", "intermediate", "light", "very light")
"""Of the angle, after Del Bino and Bernerd, British Journal of Dermatology 169, suppl. 3 (2013)."""

_EDGES = (-30.0, 10.0, 28.0, 41.0, 55.0)
# sRGB to CIE XYZ under D65, IEC 61966-2-1, and the white of the 2-degree observer.
_TO_XYZ = np.array(
    [
        [0.412453, 0.357580, 0.180423],
        [0.212671, 0.715160, 0.072169],
        [0.019334, 0.119193, 0.950227],
    ]
)
_WHITE = np.array([0.95047, 1.0, 1.08883])
_SIDE, _PATCH = 256, 20
_CORNERS = ((230, 115), (5, 115), (115, 5), (115, 230), (216, 216), (216, 20), (20, 20), (20, 216))
_LEAST_SKIN = 0.5
"""Share of a patch that must be skin, else it is left out."""
_HAIR_WIDTH, _HAIR_DEPTH = 17, 10
"""Of the black top-hat: arms of its cross in pixels, and least darkness in grey values."""


def lab(rgb: NDArray[np.uint8]) -> Floats:
    """Return CIE L*a*b* (h, w, 3) under D65; L* is 0 to 100.

    Parameters
    ----------
    rgb : (h, w, 3) sRGB values.
    """
    curve = np.arange(256) / 255
    curve = np.where(curve <= 0.04045, curve / 12.92, ((curve + 0.055) / 1.055) ** 2.4)
    ratio = curve[rgb] @ _TO_XYZ.T / _WHITE
    f = np.where(ratio > 0.008856, np.cbrt(ratio), 7.787 * ratio + 16 / 116)
    x, y, z = np.moveaxis(f, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def angle(lightness: float, yellowness: float) -> float:
    """Return the individual typology angle in degrees, larger for lighter skin.

    It is atan((L* - 50) / b*) as published where b* is above 0. Where skin looks bluish, b* is not,
    and the published angle jumps from light to dark: this one goes on above 90 degrees.
    """
    return float(np.degrees(np.arctan2(lightness - 50, yellowness)))


def category(degrees: Floats) -> NDArray[np.intp]:
    """Return the numbers (n,) in `CATEGORIES` of angles.

    Parameters
    ----------
    degrees : (n,) angles.
    """
    return np.searchsorted(_EDGES, degrees, side="left")


def of_pixels(image: Pillow.Image, lesion: Bools | None) -> float | None:
    """Return the angle of the pixels outside the lesion [1]_, None where there are none.

    L* and b* are means over pixels within one standard deviation of the mean of both.

    Parameters
    ----------
    lesion : (height, width) its mask; without one, pixels of the outer strip, as wide as that in
        which `of_patches` has its patches, stand for skin.

    References
    ----------
    .. [1] Kinyanjui et al., "Fairness of Classifiers Across Skin Tones in Dermatology", MICCAI
       2020; arXiv:1910.13268.
    """
    colours = lab(np.asarray(image))
    skin = colours[_strip(colours.shape[:2]) if lesion is None else ~lesion][:, [0, 2]]
    if not len(skin):
        return None
    near = (np.abs(skin - skin.mean(axis=0)) <= skin.std(axis=0) + 1e-9).all(axis=1)
    return angle(*(skin[near] if near.any() else skin).mean(axis=0))


def of_patches(image: Pillow.Image, lesion: Bools | None) -> float | None:
    """Return the angle of the lightest of eight patches near the border [1]_, None without one.

    The middle square is scaled to 256 pixels; patches have 20. Hair is found by a black top-hat, as
    published, and left out, where the authors paint over it.

    Parameters
    ----------
    lesion : (height, width) its mask, which is left out, too; None where it is not known.

    References
    ----------
    .. [1] Bevan and Atapour-Abarghouei, "Detecting Melanoma Fairly", MICCAI workshop DART 2022,
       arXiv:2202.02832.
    """
    square = _square(image)
    colours = lab(np.asarray(square))
    skin = ~_hair(np.asarray(square.convert("L")))
    if lesion is not None:
        skin &= ~np.asarray(_square(Pillow.fromarray(lesion)))
    places = [np.s_[y : y + _PATCH, x : x + _PATCH] for y, x in _CORNERS]
    shown = [place for place in places if skin[place].mean() >= _LEAST_SKIN]
    means = [colours[place][skin[place]].mean(axis=0) for place in shown]
    return max((angle(mean[0], mean[2]) for mean in means), default=None)


WAYS: Mapping[str, Callable[[Pillow.Image, Bools | None], float | None]] = MappingProxyType(
    {"pixels": of_pixels, "patches": of_patches}
)
"""The two ways by name: Kinyanjui et al. 2020; Bevan and Atapour-Abarghouei 2022."""


def _strip(shape: tuple[int, ...]) -> Bools:
    """Return where the outer strip of an image is (h, w)."""
    width = round(min(shape) * 40 / _SIDE)
    strip = np.ones(shape, dtype=np.bool_)
    strip[width:-width, width:-width] = False
    return strip


def _square(image: Pillow.Image) -> Pillow.Image:
    side = min(image.size)
    left, top = ((length - side) // 2 for length in image.size)
    middle = (left, top, left + side, top + side)
    how = Pillow.Resampling.NEAREST if image.mode == "1" else Pillow.Resampling.BILINEAR
    return image.resize((_SIDE, _SIDE), how, box=middle)


def _hair(grey: NDArray[np.uint8]) -> Bools:
    """Return where a picture (h, w) has lines that are darker than what is beside them."""
    from scipy.ndimage import maximum_filter1d, minimum_filter1d

    values = grey.astype(np.int16)
    dilated = np.maximum(*(maximum_filter1d(values, _HAIR_WIDTH, axis=axis) for axis in (0, 1)))
    closed = np.minimum(*(minimum_filter1d(dilated, _HAIR_WIDTH, axis=axis) for axis in (0, 1)))
    return np.asarray(closed - values > _HAIR_DEPTH)
