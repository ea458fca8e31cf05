"""A small picture of an image for a page."""

import io
from typing import NamedTuple

from common.data.pictures import KNOWN_FORMATS, decode
from common.errors import DataError

NOT_AN_IMAGE = f"no {KNOWN_FORMATS} image; export it as one"
"""What is wrong with a file that is no image."""

SIDE = 512
"""Most pixels along a side of a picture."""

_QUALITY = 82


class Picture(NamedTuple):
    """A small JPEG, with its width and height in pixels."""

    jpeg: bytes
    width: int
    height: int


def small_picture(data: bytes) -> Picture | None:
    """Return a small JPEG of an image, upright as its EXIF orientation says; None if it has none.

    It holds pixels only: no EXIF, such as a patient's name or a place, is copied.
    """
    try:
        image = decode(data, SIDE)
    except DataError:
        return None
    image.thumbnail((SIDE, SIDE))
    out = io.BytesIO()
    image.save(out, "JPEG", quality=_QUALITY)
    return Picture(out.getvalue(), *image.size)
