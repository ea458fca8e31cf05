"""Photographs in DICOM files: their pixels are read, and nothing that tells who the patient is."""

import io
import logging
import subprocess
import sys
import warnings
import zlib

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels import apply_color_lut, convert_color_space, pixel_array
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    VLPhotographicImageStorage,
)

from client.predict.images import answered
from client.predict.picture import small_picture
from client.predict.shown import ImageFile
from common.data import dicom
from common.data.pictures import decode, is_image, short_side
from common.errors import DataError
from tests.client.predict.fakes import Model

WIDTH, HEIGHT = 96, 72
NAME, NUMBER, BORN = "Doe^Jane", "PATIENT-4711", "19601231"
IDENTIFIERS = (NAME, "Doe", "Jane", NUMBER, "4711", BORN, "SURGERY-XY", "1.2.826.0.1.99")


def scene() -> np.ndarray:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return np.stack([x * 2, y * 3, (x + y) % 160], axis=-1).astype(np.uint8)


def photograph(pixels: bytes, colours: str = "RGB", samples: int = 3, **more: object) -> Dataset:
    """Make a photograph with a patient's name, number and day of birth."""
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.file_meta.MediaStorageSOPInstanceUID = "1.2.826.0.1.99.1"
    made.SOPClassUID, made.SOPInstanceUID = VLPhotographicImageStorage, "1.2.826.0.1.99.1"
    made.PatientName, made.PatientID, made.PatientBirthDate = NAME, NUMBER, BORN
    made.InstitutionName = "SURGERY-XY"
    made.Rows, made.Columns, made.SamplesPerPixel = HEIGHT, WIDTH, samples
    made.PhotometricInterpretation, made.PlanarConfiguration = colours, 0
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 8, 8, 7, 0
    made.PixelData = pixels
    for name, value in more.items():
        setattr(made, name, value)
    return made


def packed(made: Dataset, syntax: str = ExplicitVRLittleEndian) -> bytes:
    made.file_meta.TransferSyntaxUID = syntax
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID
    made["PixelData"].VR = "OB" if made.BitsAllocated == 8 else "OW"
    out = io.BytesIO()
    made.save_as(out, enforce_file_format=True)
    return out.getvalue()


def jpeg(image: Pillow.Image, **how: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=95, **how)
    return buffer.getvalue()


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(decode(data, WIDTH), dtype=np.int64)


def refused(made: Dataset | bytes) -> str:
    data = made if isinstance(made, bytes) else packed(made)
    with pytest.raises(DataError) as error:
        decode(data, WIDTH)
    shown = str(error.value) + repr(error.value.__cause__)
    assert not any(each in shown for each in IDENTIFIERS)
    return str(error.value)


def ybr() -> np.ndarray:
    return np.asarray(Pillow.fromarray(scene()).convert("YCbCr"))


def halved(values: np.ndarray) -> bytes:
    pairs = values.reshape(-1, 2, 3)
    stored = [pairs[:, 0, 0], pairs[:, 1, 0], pairs[:, 0, 1], pairs[:, 0, 2]]
    return np.stack(stored, axis=-1).tobytes()


GREY = scene()[..., 0]
KINDS = {
    "RGB": photograph(scene().tobytes()),
    "planes": photograph(np.moveaxis(scene(), -1, 0).tobytes(), PlanarConfiguration=1),
    "YBR_FULL": photograph(ybr().tobytes(), "YBR_FULL"),
    "YBR_FULL_422": photograph(halved(ybr()), "YBR_FULL_422"),
    "MONOCHROME2": photograph(GREY.tobytes(), "MONOCHROME2", 1),
    "12 bits": photograph(
        (GREY.astype("<u2") * 16).tobytes(),
        "MONOCHROME2",
        1,
        BitsAllocated=16,
        BitsStored=12,
        HighBit=11,
    ),
}


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize("kind", KINDS)
def test_colours_are_those_that_pydicom_reads(kind, syntax):
    data = packed(KINDS[kind], syntax)
    read = pydicom.dcmread(io.BytesIO(data))
    expected = pixel_array(read, raw=True).astype(np.int64)
    if kind.startswith("YBR"):
        expected = convert_color_space(expected.astype(np.uint8), "YBR_FULL", "RGB").astype(int)
    if kind == "12 bits":
        expected = np.round(expected * 255 / 4095)
    if expected.ndim == 2:
        expected = np.repeat(expected[..., None], 3, axis=2)
    assert np.abs(pixels(data) - expected).max() <= (2 if kind.startswith("YBR") else 0)
    assert short_side(data) == HEIGHT
    assert is_image(data)


def test_monochrome1_begins_at_white():
    made = photograph(GREY.tobytes(), "MONOCHROME1", 1)
    np.testing.assert_array_equal(pixels(packed(made))[..., 1], 255 - GREY.astype(np.int64))


def test_a_palette_is_looked_up():
    tables = np.random.default_rng(0).integers(0, 65536, (3, 256), dtype=np.uint16)
    more = {}
    for name, table in zip(("Red", "Green", "Blue"), tables, strict=True):
        more[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        more[f"{name}PaletteColorLookupTableData"] = table.tobytes()
    made = photograph(GREY.tobytes(), "PALETTE COLOR", 1, **more)
    expected = np.round(apply_color_lut(GREY, made) * (255 / 65535))
    np.testing.assert_array_equal(pixels(packed(made)), expected)


def test_jpeg_is_read_in_its_colours():
    """A JPEG of RGB has no mark of its colours and is taken for YCbCr by most readers."""
    image = Pillow.fromarray(scene())
    usual = photograph(encapsulate([jpeg(image)]), "YBR_FULL_422")
    found = pixels(packed(usual, JPEGBaseline8Bit))
    np.testing.assert_array_equal(found, np.asarray(Pillow.open(io.BytesIO(jpeg(image)))))
    plain = jpeg(Pillow.frombytes("YCbCr", image.size, image.tobytes()), subsampling=0)
    unmarked = plain[:2] + plain[20:]  # without JFIF's segment
    assert plain[2:4] == b"\xff\xe0"
    unnamed = photograph(encapsulate([unmarked]), "RGB")
    assert np.abs(pixels(packed(unnamed, JPEGBaseline8Bit)) - scene()).mean() < 3


def test_what_does_not_fit_its_description_is_refused():
    assert refused(photograph(scene().tobytes(), "YBR_FULL_422")) == (
        "a DICOM file of 20736 bytes of pixels, where YBR_FULL_422 of 96x72 pixels has 13824; "
        "export it again"
    )
    assert "RGB of 96x72 pixels has 20736" in refused(photograph(scene().tobytes()[:-2]))
    assert "not of the kind" in refused(photograph(scene().tobytes(), "MONOCHROME2", 3))
    assert "not of the kind" in refused(photograph(scene().tobytes(), PixelRepresentation=1))
    assert "neither 8 nor 16 bits" in refused(photograph(scene().tobytes(), BitsStored=9))
    other = encapsulate([jpeg(Pillow.new("RGB", (3000, 3000)))])
    assert "not of the size" in refused(packed(photograph(other), JPEGBaseline8Bit))
    grey = encapsulate([jpeg(Pillow.new("L", (WIDTH, HEIGHT)))])
    assert "colours announced" in refused(packed(photograph(grey), JPEGBaseline8Bit))


def test_other_objects_are_refused_by_the_name_of_their_kind():
    made = photograph(scene().tobytes(), SOPClassUID=CTImageStorage)
    assert refused(made) == "a DICOM file of CT Image Storage; photographs of skin alone are read"
    own = photograph(scene().tobytes(), SOPClassUID="1.2.826.0.1.99.7")
    assert "an unknown class" in refused(own)
    assert "several frames" in refused(photograph(scene().tobytes() * 2, NumberOfFrames=2))
    assert "text in its picture" in refused(photograph(scene().tobytes(), BurnedInAnnotation="YES"))
    assert "other colours than RGB" in refused(photograph(scene().tobytes(), "CMYK"))
    small = photograph(scene()[:50].tobytes(), Rows=50)
    assert refused(small) == "an image of 96x50 pixels; its shorter side must have 64"


def test_a_packed_file_is_refused_before_it_is_unpacked():
    """A small file may unpack to any size."""
    data = packed(photograph(scene().tobytes()), DeflatedExplicitVRLittleEndian)
    assert "Deflated Explicit VR Little Endian; export it uncompressed" in refused(data)
    header = packed(photograph(scene().tobytes()))
    bomb = data[: len(data) - 1000] + zlib.compress(bytes(10**7))
    assert "Deflated" in refused(bomb)
    assert refused(header[:200]) == "a DICOM file that cannot be read; export it again"


def test_identifiers_are_in_nothing_that_is_kept_or_shown(caplog, capsys):
    good, bad = packed(KINDS["RGB"]), packed(photograph(b"\0" * 90))
    image = decode(good, WIDTH)
    kept = [repr(image.__dict__).encode(), image.tobytes(), small_picture(good).jpeg]
    kept.append(repr(vars(dicom.opened(good)._file)).encode())
    files = [ImageFile(name, data) for name, data in (("a.dcm", good), ("b.dcm", bad))]
    kept += [repr(each.shown).encode() for each in answered(Model(), files, evidence=True)]
    kept += [caplog.text.encode(), "".join(capsys.readouterr()).encode()]
    assert NAME.encode() in good
    assert not any(each.encode() in part for each in IDENTIFIERS for part in kept)


@given(
    st.sampled_from([packed(made) for made in KINDS.values()]),
    st.lists(st.tuples(st.integers(128, 900), st.binary(max_size=6)), max_size=4),
    st.integers(0, 3000),
)
def test_damaged_files_are_images_or_refused_without_a_name(data, changes, cut):
    for start, damage in changes:
        data = data[:start] + damage + data[start + len(damage) :]
    told = io.StringIO()
    handler = logging.StreamHandler(told)
    logging.getLogger("pydicom").addHandler(handler)
    with warnings.catch_warnings(record=True, action="always") as warned:
        try:
            mode = decode(data[: len(data) - cut], 64).mode
        except DataError as error:
            told.write(str(error))
        else:
            assert mode == "RGB"
    logging.getLogger("pydicom").removeHandler(handler)
    told.write("".join(str(each.message) for each in warned))
    assert not any(each in told.getvalue() for each in IDENTIFIERS)


def test_without_pydicom_the_extra_is_named():
    code = (
        "import sys; sys.modules['pydicom'] = None\n"
        "from common.data.pictures import decode\n"
        "try: decode(bytes(128) + b'DICM', 64)\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("DataError a DICOM file, which pydicom reads; install it by")
