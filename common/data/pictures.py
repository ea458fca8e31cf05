"""The one door for images: a file's bytes become red, green and blue pixels, or a reason why not.

What a file is, its first bytes say and not its name. Training, the check of a folder, prediction
and the page that is served all decode here: what one of them reads, all read, with the same bits.
"""

import io
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import numpy as np
from PIL import Image as Pillow
from PIL import UnidentifiedImageError

from common.data import dicom
from common.errors import DataError, reason

FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "WEBP")
"""Formats of image files, by Pillow's names, without DICOM; the first holds MPO, too."""

KNOWN_FORMATS = "JPEG, PNG, TIFF, BMP, WebP or DICOM"

ENDINGS = (".jpg", ".jpeg", ".jpe", ".mpo", ".png", ".tif", ".tiff", ".bmp", ".webp", ".dcm")
"""How names of such files end, in small letters."""

PICTURE_ENDINGS = (*ENDINGS, ".heic", ".heif", ".avif", ".gif", ".jp2", ".jxl", ".psd", ".dng")
"""And how those of pictures end that are not read, but must not be lost without a word."""

LEAST_SIDE = 64
"""Least pixels of a shorter side: less shows no lesion."""

MOST_PIXELS = 64_000_000
"""Most pixels of an image; to decode one takes up to 1 GiB of memory."""

_BROKEN = "an image cannot be decoded"
_MOST_SCANS = 100  # of a progressive JPEG: each takes as long as an image; cameras write about ten
_BAND = 4_000_000  # pixels whose colours are converted at once
_ORIENTATION = 0x0112
_TURNS = {
    2: Pillow.Transpose.FLIP_LEFT_RIGHT,
    3: Pillow.Transpose.ROTATE_180,
    4: Pillow.Transpose.FLIP_TOP_BOTTOM,
    5: Pillow.Transpose.TRANSPOSE,
    6: Pillow.Transpose.ROTATE_270,
    7: Pillow.Transpose.TRANSVERSE,
    8: Pillow.Transpose.ROTATE_90,
}
_PHOTOMETRIC, _WHITE_IS_ZERO = 262, 0

# Pillow and pydicom warn of what is then refused, or of what beside the pixels is damaged.
warnings.filterwarnings("ignore", module=r"(PIL|pydicom)\.")


class _Room:
    """Lets threads hold as many pixels at once as one image may have: memory stays bounded."""

    def __init__(self) -> None:
        self._free, self._changed = MOST_PIXELS, threading.Condition()

    @contextmanager
    def of(self, pixels: int) -> Iterator[None]:
        """Wait until there is room, and take it."""
        with self._changed:
            self._changed.wait_for(lambda: self._free >= pixels)
            self._free -= pixels
        try:
            yield
        finally:
            with self._changed:
                self._free += pixels
                self._changed.notify_all()


_room = _Room()


def _begin_again() -> None:
    global _room
    _room = _Room()


# Threads that held the room are not in a forked process.
os.register_at_fork(after_in_child=_begin_again)


def named_as_image(name: str) -> bool:
    """Tell by its name whether a file may be an image, of a format that is read or not."""
    # Names with a leading dot are the resource forks that macOS leaves on disks and in archives.
    return name.lower().endswith(PICTURE_ENDINGS) and not os.path.basename(name).startswith(".")


def is_image(data: bytes) -> bool:
    """Tell by the first bytes whether a file is of a format that is read."""
    jpeg, png = data.startswith(b"\xff\xd8\xff"), data.startswith(b"\x89PNG\r\n\x1a\n")
    tiff = data.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"))
    webp = data[:4] == b"RIFF" and data[8:12] == b"WEBP"
    return jpeg or png or tiff or webp or data.startswith(b"BM") or dicom.is_dicom(data)


def decode(data: bytes, size: int) -> Pillow.Image:
    """Decode an image file to RGB, a large one at the least scale not below ``size``.

    The image is turned as EXIF says. Grey of 16 bits is rescaled, transparent pixels lie over
    white, colour profiles are not applied, of an MPO file the first image is taken. The scale is 1,
    1/2, 1/4 or 1/8, which a JPEG is decoded at; the pixels of others are averaged, to nearly the
    same. The pixels come alone, without what the file says beside them.

    Parameters
    ----------
    size : least pixels of the short side that are wanted.

    Raises
    ------
    DataError
        If the bytes are no image, damaged or cut, have several frames, more than
        :data:`MOST_PIXELS` or a side below :data:`LEAST_SIDE`; the message fits after a name.
    """
    with _told():
        pixels = _photograph(data) if dicom.is_dicom(data) else _picture(data, size)
        pixels.info.clear()
        return pixels if _is_jpeg(data) else pixels.reduce(_scale(pixels, size))


def short_side(data: bytes) -> int:
    """Return the short side of an image file in pixels, from its header.

    Raises
    ------
    DataError
        If the bytes are no image or its size is none that :func:`decode` reads.
    """
    return _checked(*sides(data))


def sides(data: bytes) -> tuple[int, int]:
    """Return width and height of an image file in pixels, from its header.

    Raises
    ------
    DataError
        If the bytes are no image.
    """
    with _told():
        if dicom.is_dicom(data):
            found = dicom.opened(data)
            return found.width, found.height
        with Pillow.open(io.BytesIO(data), formats=FORMATS) as image:
            return image.size


@contextmanager
def _told() -> Iterator[None]:
    """Turn every error into one that a user can act on."""
    try:
        yield
    except DataError:
        raise
    except UnidentifiedImageError as error:  # its text shows an address in memory
        raise DataError(f"{_BROKEN} (no image, or a damaged one); use {KNOWN_FORMATS}") from error
    except Pillow.DecompressionBombError as error:
        raise DataError(_too_many("far more pixels")) from error
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged bytes
        text = f"{_BROKEN} ({reason(error)}); export or copy it again"
        raise DataError(text) from error


def _photograph(data: bytes) -> Pillow.Image:
    found = dicom.opened(data)
    _checked(found.width, found.height)
    with _room.of(found.width * found.height):
        return found.image()


def _picture(data: bytes, size: int) -> Pillow.Image:
    with Pillow.open(io.BytesIO(data), formats=FORMATS) as image:
        _checked(*image.size)
        if getattr(image, "is_animated", False) and image.format != "MPO":
            raise DataError(f"a {image.format} of several frames; save the right one by itself")
        if _is_jpeg(data) and data.count(b"\xff\xda") > _MOST_SCANS:
            raise DataError("a JPEG of too many scans; save it again")
        with _room.of(image.width * image.height):
            image.draft("RGB", (size, size))
            image.load()
            return _rgb(_upright(image))


def _checked(width: int, height: int) -> int:
    """Return the short side of an image that is neither too small nor too large."""
    if min(width, height) < LEAST_SIDE:
        raise DataError(
            f"an image of {width}x{height} pixels; its shorter side must have {LEAST_SIDE}"
        )
    if width * height > MOST_PIXELS:
        raise DataError(_too_many(f"{width}x{height} pixels"))
    return min(width, height)


def _too_many(size: str) -> str:
    return f"an image of {size}; at most {MOST_PIXELS // 1_000_000} million are read, reduce it"


def _is_jpeg(data: bytes) -> bool:
    return data.startswith(b"\xff\xd8")


def _scale(image: Pillow.Image, size: int) -> int:
    """Return by how much Pillow makes a JPEG of this size smaller where ``size`` is wanted."""
    return next(scale for scale in (8, 4, 2, 1) if min(image.size) >= scale * size or scale == 1)


def _upright(image: Pillow.Image) -> Pillow.Image:
    """Turn an image as its EXIF says; one with damaged EXIF stays as it is."""
    turn = None
    with suppress(Exception):  # readers of EXIF raise nearly anything, too
        turn = _TURNS.get(image.getexif().get(_ORIENTATION, 1))
    return image if turn is None else image.transpose(turn)


def _rgb(image: Pillow.Image) -> Pillow.Image:
    if image.mode.startswith("I;16") or (image.mode, image.format) == ("I", "PNG"):
        inverted = getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == _WHITE_IS_ZERO
        return _in_bands(image, lambda band: _eight_bits(band, inverted))
    if image.mode in ("I", "F"):
        raise DataError("an image of 32 bits a pixel and colour; save it with 8 or 16")
    if image.has_transparency_data:
        return _in_bands(image, _over_white)
    return image.convert("RGB")


def _in_bands(image: Pillow.Image, convert: Callable[[Pillow.Image], Pillow.Image]) -> Pillow.Image:
    """Convert colours a few rows at a time: what is needed on the way takes little memory."""
    rows = max(1, _BAND // image.width)
    out = Pillow.new("RGB", image.size)
    for top in range(0, image.height, rows):
        bottom = min(image.height, top + rows)
        out.paste(convert(image.crop((0, top, image.width, bottom))), (0, top))
    return out


def _eight_bits(band: Pillow.Image, inverted: bool) -> Pillow.Image:
    values = (np.asarray(band).astype(np.uint32) * 255 + 32767) // 65535
    return Pillow.fromarray((255 - values if inverted else values).astype(np.uint8))


def _over_white(band: Pillow.Image) -> Pillow.Image:
    colours = band.convert("RGBA")
    white = Pillow.new("RGB", band.size, "white")
    white.paste(colours, mask=colours.getchannel("A"))
    return white
