"""From an image file to the working image: one resolution and one colour of light for all cameras.

All views are crops of the working image. A camera with more pixels would otherwise show sharp crops
where another shows blurred enlargements of the same skin, and a network tells the two apart.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image as Pillow

from common.data.pictures import decode, short_side
from common.errors import ConfigError

Colour = Literal["none", "grey-world", "shades-of-gray"]

RESOLUTION = 225
"""Short side of the working image in pixels where none is chosen: that of HAM10000 at 300x225."""

_EXPONENTS: dict[Colour, int] = {"grey-world": 1, "shades-of-gray": 6}
"""Of the mean that estimates the light, by method."""

_LEVELS = np.arange(256)


def exponent(colour: Colour) -> int:
    """Return the exponent of the mean by which a method estimates the light; 0 for none."""
    return _EXPONENTS.get(colour, 0)


@dataclass(frozen=True)
class Transform:
    """What is done to an image before any view is cut from it.

    Attributes
    ----------
    resolution : short side in pixels that larger images are reduced to, at least 32. Smaller images
        stay as they are: what they do not show cannot be made up.
    colour : how the colour of the light is taken out, as of :func:`balanced`.

    Raises
    ------
    ConfigError
        If one of them is impossible.
    """

    resolution: int = RESOLUTION
    colour: Colour = "none"

    def __post_init__(self) -> None:
        if self.resolution < 32:
            raise ConfigError(f"resolution is {self.resolution}; it must be at least 32")
        if self.colour not in ("none", *_EXPONENTS):
            known = ", ".join(("none", *_EXPONENTS))
            raise ConfigError(f"colour is {self.colour!r}; choose from {known}")

    def image(self, data: bytes) -> Pillow.Image:
        """Return the working image, RGB, of an image file's bytes.

        Raises
        ------
        DataError
            If the bytes are no image.
        """
        # A JPEG decoder's own reduction is sharper than an average: it goes half of the way only.
        return balanced(reduced(decode(data, 2 * self.resolution), self.resolution), self.colour)

    def lacks_pixels(self, data: bytes) -> bool:
        """Tell whether an image file is smaller than the working image; only its header is read.

        Raises
        ------
        DataError
            If the bytes are no image.
        """
        return short_side(data) < self.resolution


def reduced(image: Pillow.Image, resolution: int) -> Pillow.Image:
    """Return an RGB image whose short side has at most ``resolution`` pixels, antialiased.

    An image that is not larger is returned as it is, bit for bit.
    """
    if min(image.size) <= resolution:
        return image
    scale = resolution / min(image.size)
    width, height = (max(resolution, round(side * scale)) for side in image.size)
    return image.resize((width, height), Pillow.Resampling.BICUBIC)


def balanced(image: Pillow.Image, colour: Colour) -> Pillow.Image:
    """Return an RGB image as it would look under white light of the same strength.

    The light is estimated by the Minkowski mean of each channel, of exponent 1 for "grey-world" and
    6 for "shades-of-gray" [1]_, from the values as they are stored. Each channel is divided by its
    estimate and multiplied by the root mean square of the three; "none" returns the image.

    References
    ----------
    .. [1] Finlayson and Trezzi, "Shades of Gray and Colour Constancy", Color Imaging Conference
       2004.
    """
    if colour == "none":
        return image
    p = _EXPONENTS[colour]
    counts = np.reshape(image.histogram(), (3, 256)) / (image.width * image.height)
    light = (counts @ (_LEVELS / 255.0) ** p) ** (1 / p)
    strength = np.sqrt(np.mean(light**2))
    gains = np.divide(strength, light, out=np.ones(3), where=light > 0)
    table = np.clip(np.round(gains[:, None] * _LEVELS), 0, 255).astype(int)
    return image.point(table.ravel().tolist())
