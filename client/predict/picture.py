"""Which files are images, and a small picture of one for a page."""

import io
import warnings
from typing import NamedTuple

from PIL import Image as Pillow
from PIL import ImageOps

from common.features.augment import FORMATS

ENDINGS = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp")
"""How names of such files end."""

NOT_AN_IMAGE = "no JPEG, PNG, TIFF or WebP image; export it as one"
"""What is wrong with any other file."""

SIDE = 512
"""Most pixels along a side of a picture."""

_MOST_PIXELS = 100_000_000
_QUALITY = 82


def is_image(data: bytes) -> bool:
    """Tell by the first bytes whether a file is of one of ``FORMATS``."""
    jpeg, png = data.startswith(b"\xff\xd8\xff"), data.startswith(b"\x89PNG\r\n\x1a\n")
    tiff = data.startswith((b"II*\0", b"MM\0*"))
    return jpeg or png or tiff or (data[:4] == b"RIFF" and data[8:12] == b"WEBP")


class Picture(NamedTuple):
    """A small JPEG, with its width and height in pixels."""

    jpeg: bytes
    width: int
    height: int


def small_picture(data: bytes) -> Picture | None:
    """Return a small JPEG of an image, upright as its EXIF orientation says; None if it has none.

    It holds pixels only: no EXIF, such as a patient's name or a place, is copied. An image with
    more than 100 million pixels has no picture.
    """
    try:
        with warnings.catch_warnings(action="ignore"):
            return _shrunk(data)
    except Exception:  # Pillow's decoders raise nearly anything on damaged bytes
        return None


def _shrunk(data: bytes) -> Picture:
    with Pillow.open(io.BytesIO(data), formats=FORMATS) as image:
        if image.width * image.height > _MOST_PIXELS:
            raise ValueError("too many pixels")
        image.draft("RGB", (SIDE, SIDE))
        image.thumbnail((SIDE, SIDE))
        upright = ImageOps.exif_transpose(image).convert("RGB")
    out = io.BytesIO()
    Pillow.frombytes("RGB", upright.size, upright.tobytes()).save(out, "JPEG", quality=_QUALITY)
    return Picture(out.getvalue(), *upright.size)
