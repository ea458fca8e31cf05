"""Views of an image: what a network sees of it in training and in prediction.

A view is a pure function of the image, the configuration, the seed, the image's content key and the
view's number. It has the same bits in any thread, order or process. Geometry and colours work on
8-bit Pillow images, which is both faster than tensors here and antialiased. torchvision, and torch
with it, is imported where an augmented view is made: cached features and prediction need neither.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image as Pillow

from common.arrays import Floats, Floats32
from common.errors import ConfigError

CROPS = (1.0, 0.5, 0.7, 0.875)
"""Sides of the prediction views' crops, as shares of the image's short side."""

PREDICTION_VIEWS = 2 * len(CROPS)
"""How many prediction views there are: each crop, then their mirror images."""

_SYMMETRIES = 8  # of a square: four quarter turns, each with its mirror image


@dataclass(frozen=True)
class Augmentation:
    """How much augmented views differ from the image.

    A lesion has no upright position, so every view is rotated by a random multiple of 90 degrees
    and mirrored at random; other angles need invented corners, which are then reflections of the
    image. A lesion lies in the middle of its image, so crops stay near the middle.

    Attributes
    ----------
    least_crop : the crop is a square; its side is uniform between this share of the image's short
        side, in (0, 1], and all of it.
    shift : how far, in each direction, the crop's centre may lie from the image's, as a share of
        the crop's side, in [0, 1); uniform, but never beyond the image.
    brightness, contrast, saturation : each factor is uniform in 1 plus or minus this, in [0, 1).
    hue : uniform in plus or minus this, as a share of the circle of colours, in [0, 0.5].
    stretch : a view's width grows, and its height shrinks, by a factor whose logarithm is uniform
        in plus or minus this, in [0, 1).
    any_angle : whether views are rotated by any angle.

    Raises
    ------
    ConfigError
        If a number is out of range.
    """

    least_crop: float = 0.45
    shift: float = 0.1
    brightness: float = 0.15
    contrast: float = 0.15
    saturation: float = 0.15
    hue: float = 0.0
    stretch: float = 0.0
    any_angle: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.least_crop <= 1:
            raise ConfigError(f"least_crop is {self.least_crop}; it must be above 0, at most 1")
        for name in ("shift", "brightness", "contrast", "saturation", "stretch"):
            if not 0 <= (value := getattr(self, name)) < 1:
                raise ConfigError(f"{name} is {value}; it must be at least 0, below 1")
        if not 0 <= self.hue <= 0.5:
            raise ConfigError(f"hue is {self.hue}; it must be at least 0, at most 0.5")
        if self.stretch and not self.any_angle:
            raise ConfigError("stretch is for views of any angle; set any_angle")


STRONG = Augmentation(
    shift=0.15,
    brightness=0.25,
    contrast=0.25,
    saturation=0.25,
    hue=0.03,
    stretch=0.1,
    any_angle=True,
)
"""For a long training, which would learn the usual views by heart; docs/results.md compares."""

WEAK = Augmentation(least_crop=1.0, shift=0.0, brightness=0.0, contrast=0.0, saturation=0.0)
"""All of the short side as it is, but for the quarter turns and the mirroring of every view."""


def augmented_view(
    image: Pillow.Image, content: str, number: int, seed: int, size: int, how: Augmentation
) -> Pillow.Image:
    """Return the augmented view ``number`` (0, 1, ...) of an RGB image, ``size`` pixels square.

    ``content`` is a hexadecimal key of the image's bytes: images that are equal have equal views.
    """
    v2 = _transforms()
    rng = np.random.default_rng([seed, int(content, 16), number])
    side = round(min(image.size) * rng.uniform(how.least_crop, 1))
    shift = rng.uniform(-1, 1, 2) * how.shift
    if how.any_angle:
        view = _turned(image, side, shift, rng.uniform(0, 2 * np.pi), _stretched(rng, how), size)
    else:
        view = _crop(image, side, shift, size)
    spread = (how.brightness, how.contrast, how.saturation)
    brightness, contrast, saturation = 1 + rng.uniform(-1, 1, 3) * spread
    view = v2.adjust_brightness(view, brightness)
    view = v2.adjust_contrast(view, contrast)
    view = v2.adjust_saturation(view, saturation)
    if how.hue:
        view = v2.adjust_hue(view, rng.uniform(-how.hue, how.hue))
    number = int(rng.integers(_SYMMETRIES))
    view = v2.rotate(view, 90 * (number // 2))
    return _mirrored(view, number % 2 == 1)


def prediction_view(image: Pillow.Image, number: int, size: int) -> Pillow.Image:
    """Return a square around the centre of an RGB image, resized bicubically to ``size`` pixels.

    View ``number`` has crop ``number`` modulo the number of :data:`CROPS`; those after the first
    round are mirrored.
    """
    left, top, right, _ = crop_box(image.size, number)
    view = _resized(image, left, top, right - left, size)
    return _mirrored(view, number >= len(CROPS))


def crop_box(size: tuple[int, int], number: int) -> tuple[int, int, int, int]:
    """Return the left, top, right and bottom edge, in pixels, of what a prediction view shows.

    Parameters
    ----------
    size : width and height of the image in pixels.
    """
    side = round(min(size) * CROPS[number % len(CROPS)])
    left, top = _corner(size, side, np.zeros(2))
    return left, top, left + side, top + side


def normalise(view: Pillow.Image, mean: tuple[float, ...], std: tuple[float, ...]) -> Floats32:
    """Return a view as float32 (3, size, size); ``mean`` and ``std`` refer to values in [0, 1]."""
    scale = np.divide(1 / 255, std, dtype=np.float32)
    shift = np.divide(mean, std, dtype=np.float32)
    values = np.empty((len(scale), view.height, view.width), dtype=np.float32)
    # By channels, because steps of three pixels take twice as long.
    for channel, into, factor, offset in zip(view.split(), values, scale, shift, strict=True):
        np.multiply(np.asarray(channel), factor, out=into, casting="unsafe")
        into -= offset
    return values


def _stretched(rng: np.random.Generator, how: Augmentation) -> float:
    return float(np.exp(rng.uniform(-how.stretch, how.stretch)))


def _turned(
    image: Pillow.Image, side: int, shift: Floats, angle: float, stretch: float, size: int
) -> Pillow.Image:
    """Return the square that :func:`_crop` does, turned about its centre and stretched.

    What lies beyond the image is its reflection.
    """
    left, top = _corner(image.size, side, shift)
    margin = max(image.size) // 2
    around = ((margin, margin), (margin, margin), (0, 0))
    wide = Pillow.fromarray(np.pad(np.asarray(image), around, mode="reflect"))
    scale, middle = side / size, size / 2
    cosine, sine = scale * np.cos(angle), scale * np.sin(angle)
    # From pixels of the view to those of the image: a rotation after the stretch.
    a, b, d, e = cosine * stretch, -sine / stretch, sine * stretch, cosine / stretch
    x, y = left + side / 2 + margin, top + side / 2 + margin
    matrix = (a, b, x - (a + b) * middle, d, e, y - (d + e) * middle)
    return wide.transform((size, size), Pillow.Transform.AFFINE, matrix, Pillow.Resampling.BICUBIC)


def _crop(image: Pillow.Image, side: int, shift: Floats, size: int) -> Pillow.Image:
    """Return the square of ``side`` pixels, ``shift`` sides off the centre, resized to ``size``."""
    return _resized(image, *_corner(image.size, side, shift), side, size)


def _corner(size: tuple[int, int], side: int, shift: Floats) -> tuple[int, int]:
    room = np.subtract(size, side)
    left, top = np.clip(np.round(room / 2 + shift * side), 0, room).astype(int).tolist()
    return left, top


def _resized(image: Pillow.Image, left: int, top: int, side: int, size: int) -> Pillow.Image:
    view = image.crop((left, top, left + side, top + side))
    return view.resize((size, size), Pillow.Resampling.BICUBIC)


def _mirrored(view: Pillow.Image, mirror: bool) -> Pillow.Image:
    return view.transpose(Pillow.Transpose.FLIP_LEFT_RIGHT) if mirror else view


def _transforms() -> Any:
    import common.features.torchvision_ops  # noqa: F401  (before torchvision)

    from torchvision.transforms.v2 import functional  # isort: skip

    return functional
