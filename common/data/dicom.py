"""Photographs of skin in DICOM files; the optional package pydicom reads them.

Of such a file only what says how its pixels lie is read: no name, number or date of a patient comes
into memory as more than the file's bytes. Errors repeat nothing that the file says either, but for
the name of a class or transfer syntax of the standard.
"""

import io
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, BinaryIO, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from common.errors import DataError

if TYPE_CHECKING:
    from pydicom import Dataset

T = TypeVar("T")
Values = NDArray[np.integer]

_PREAMBLE = 132  # bytes before the first element
_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.77.1.4",  # VL Photographic Image
    "1.2.840.10008.5.1.4.1.1.77.1.7",  # Dermoscopic Photography Image
}
_IMPLICIT = "1.2.840.10008.1.2"
_UNCOMPRESSED = {_IMPLICIT, "1.2.840.10008.1.2.1"}  # in little endian
_JPEG = {"1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51"}
_SAMPLES = {
    "RGB": 3,
    "YBR_FULL": 3,
    "YBR_FULL_422": 3,
    "MONOCHROME1": 1,
    "MONOCHROME2": 1,
    "PALETTE COLOR": 1,
}
_PALETTES = ("Red", "Green", "Blue")
_TAGS = (
    "SOPClassUID",
    "NumberOfFrames",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PlanarConfiguration",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "PixelRepresentation",
    "BurnedInAnnotation",
    *(f"{c}PaletteColorLookupTableDescriptor" for c in _PALETTES),
    *(f"{c}PaletteColorLookupTableData" for c in _PALETTES),
    *(f"Segmented{c}PaletteColorLookupTableData" for c in _PALETTES),
    "PixelData",
)
_UNREADABLE = "a DICOM file that cannot be read; export it again"


def is_dicom(data: bytes) -> bool:
    """Tell by the first bytes whether a file is of DICOM."""
    return data[128:132] == b"DICM"


@dataclass(frozen=True)
class Photograph:
    """A photograph of one frame whose pixels are not decoded yet.

    Attributes
    ----------
    width, height : in pixels.
    compressed : whether the pixels are a JPEG.
    """

    width: int
    height: int
    compressed: bool
    _file: "Dataset"

    def image(self) -> Pillow.Image:
        """Return the pixels as RGB.

        Raises
        ------
        DataError
            If they are damaged or not those that the file announces.
        """
        return _readably(self._decoded)

    def _decoded(self) -> Pillow.Image:
        return self._of_jpeg() if self.compressed else self._of_values()

    @property
    def _colours(self) -> str:
        return str(self._file.PhotometricInterpretation)

    def _of_jpeg(self) -> Pillow.Image:
        from pydicom.encaps import generate_frames

        frame = next(generate_frames(self._file.PixelData, number_of_frames=1))
        with Pillow.open(io.BytesIO(frame), formats=("JPEG",)) as image:
            announced = ((self.width, self.height), _SAMPLES[self._colours])
            if (image.size, len(image.getbands())) != announced:
                raise DataError("a DICOM file whose JPEG is not of the size or colours announced")
            # A JPEG that says nothing of its colours is taken for YCbCr: as these its RGB is read.
            plain = self._colours == "RGB" and not image.info.keys() & {"jfif", "adobe_transform"}
            if plain:
                image.draft("YCbCr", image.size)
            if not plain:
                return image.convert("RGB")
            return Pillow.frombytes("RGB", image.size, image.tobytes())

    def _of_values(self) -> Pillow.Image:
        values = self._values()
        if self._colours == "PALETTE COLOR":
            from pydicom.pixels.processing import apply_color_lut

            values = apply_color_lut(values, self._file)
            return Pillow.fromarray(_eight_bits(values, 8 * values.dtype.itemsize))
        values = _eight_bits(values, int(self._file.BitsStored))
        if self._colours.startswith("MONOCHROME"):
            grey = 255 - values if self._colours == "MONOCHROME1" else values
            return Pillow.fromarray(grey).convert("RGB")
        mode = "RGB" if self._colours == "RGB" else "YCbCr"
        return Pillow.frombytes(mode, (self.width, self.height), values.tobytes()).convert("RGB")

    def _values(self) -> Values:
        """Return the values as stored, (height, width) or (height, width, 3)."""
        file, samples = self._file, _SAMPLES[self._colours]
        if not (samples == file.SamplesPerPixel and file.PixelRepresentation == 0):
            raise DataError("a DICOM file whose pixels are not of the kind that it announces")
        size, halved = self.width * self.height, self._colours == "YBR_FULL_422"
        count = size * (2 if halved else samples)
        wanted = count * int(file.BitsAllocated) // 8
        if len(file.PixelData) != wanted + wanted % 2:
            raise DataError(
                f"a DICOM file of {len(file.PixelData)} bytes of pixels, where {self._colours} of "
                f"{self.width}x{self.height} pixels has {wanted}; export it again"
            )
        kind = f"<u{file.BitsAllocated // 8}"
        values: Values = np.frombuffer(file.PixelData, dtype=kind, count=count)
        if halved:
            return self._with_all_colours(values)
        if samples == 1:
            return values.reshape(self.height, self.width)
        if file.get("PlanarConfiguration", 0) == 1:
            return np.moveaxis(values.reshape(samples, self.height, self.width), 0, -1)
        return values.reshape(self.height, self.width, samples)

    def _with_all_colours(self, values: Values) -> Values:
        """Give both pixels of a pair their common colours."""
        pairs = values.reshape(-1, 4)  # Y, Y, Cb, Cr
        whole = np.empty((len(pairs), 2, 3), dtype=values.dtype)
        whole[..., 0] = pairs[:, :2]
        whole[..., 1:] = pairs[:, None, 2:]
        return whole.reshape(self.height, self.width, 3)


def opened(data: bytes) -> Photograph:
    """Read how the pixels of a photograph lie.

    Raises
    ------
    DataError
        If pydicom is not installed, or the file is damaged or no photograph that can be read.
    """
    return _readably(lambda: _opened(data))


def _readably(read: Callable[[], T]) -> T:
    try:
        return read()
    except DataError:
        raise
    except Exception:  # its text may repeat what stands in the file
        raise DataError(_UNREADABLE) from None


def _opened(data: bytes) -> Photograph:
    _prepare_pydicom()
    file = io.BytesIO(data)
    file.seek(_PREAMBLE)
    # How the rest is packed is known before anything is unpacked.
    header = _read(file, ["TransferSyntaxUID"], implicit=False, header=True)
    syntax = str(header.TransferSyntaxUID)
    if syntax not in _UNCOMPRESSED | _JPEG:
        raise DataError(
            f"a DICOM file in {_standard_name(syntax, 'another transfer syntax')}; export it "
            "uncompressed or as JPEG Baseline"
        )
    body = _read(file, _TAGS, implicit=syntax == _IMPLICIT)
    _refuse_others(body)
    return Photograph(int(body.Columns), int(body.Rows), syntax in _JPEG, body)


@cache
def _prepare_pydicom() -> None:
    """Keep pydicom from telling, in warnings and logs, what stands in damaged files."""
    try:
        from pydicom import config
    except ImportError:
        raise DataError(
            "a DICOM file, which pydicom reads; install it by `pip install 'fedderm[dicom]'`"
        ) from None
    config.settings.reading_validation_mode = config.IGNORE
    config.logger.setLevel(logging.CRITICAL)


def _read(
    file: BinaryIO, names: Sequence[str], *, implicit: bool, header: bool = False
) -> "Dataset":
    """Read elements by their names, of the header or of what follows it, and no others."""
    from pydicom.filereader import read_dataset
    from pydicom.tag import Tag

    return read_dataset(
        file,
        is_implicit_VR=implicit,
        is_little_endian=True,
        stop_when=(lambda tag, *_: tag.group != 2) if header else None,
        specific_tags=[Tag(name) for name in names],
    )


def _refuse_others(file: "Dataset") -> None:
    """Refuse what is no photograph of one frame in colours that are read."""
    if file.SOPClassUID not in _CLASSES:
        name = _standard_name(file.SOPClassUID, "an unknown class")
        raise DataError(f"a DICOM file of {name}; photographs of skin alone are read")
    if int(file.get("NumberOfFrames") or 1) != 1:
        raise DataError("a DICOM file of several frames; export the right one by itself")
    if file.get("BurnedInAnnotation") == "YES":
        raise DataError("a DICOM file with text in its picture, maybe a name; export it without")
    if file.PhotometricInterpretation not in _SAMPLES:
        raise DataError(f"a DICOM file in other colours than {', '.join(_SAMPLES)}; export it so")
    if file.BitsAllocated not in (8, 16) or not 1 <= file.BitsStored <= file.BitsAllocated:
        raise DataError("a DICOM file whose pixels have neither 8 nor 16 bits; export it so")


def _standard_name(uid: str, otherwise: str) -> str:
    """Return the standard's name of an identifier; one of the file's own is not repeated."""
    from pydicom.uid import UID

    name = UID(uid).name
    return otherwise if name == uid else name


def _eight_bits(values: Values, bits: int) -> NDArray[np.uint8]:
    """Rescale values below 2 to the power of ``bits``; those beyond are the largest."""
    most = 2**bits - 1
    table = ((np.arange(most + 1) * 255 + most // 2) // most).astype(np.uint8)
    out = np.empty(values.shape, dtype=np.uint8)
    for row, into in zip(values, out, strict=True):  # numpy's indices take eight bytes each
        into[...] = table[np.minimum(row, most)]
    return out
