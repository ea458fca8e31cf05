"""Every kind of image file is read as the pixels that it shows, or refused in one line."""

import io
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from common.data.pictures import FORMATS, LEAST_SIDE, MOST_PIXELS, decode, is_image, short_side
from common.errors import DataError
from tests.exif import ORIENTATION, STORED

WIDTH, HEIGHT = 96, 72
LOSSLESS = ("PNG", "TIFF", "BMP")


def scene(mode: str = "RGB") -> Pillow.Image:
    """Draw a smooth picture of which no two corners are alike."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    values = np.stack([x * 2, y * 3, (x + y) % 160], axis=-1).astype(np.uint8)
    return Pillow.fromarray(values).convert(mode)


def file(image: Pillow.Image, kind: str = "PNG", **how: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **how)
    return buffer.getvalue()


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(decode(data, WIDTH), dtype=np.int64)


def refused(data: bytes) -> str:
    with pytest.raises(DataError) as error:
        decode(data, WIDTH)
    assert "\n" not in str(error.value)
    return str(error.value)


def close(data: bytes, most: float) -> bool:
    found = pixels(data)
    return bool(np.abs(found - np.asarray(scene(), dtype=np.int64)).mean() < most)


@pytest.mark.parametrize("kind", FORMATS)
def test_formats_are_known_by_their_content(kind):
    data = file(scene(), kind, **({"lossless": True} if kind == "WEBP" else {}))
    assert is_image(data)
    assert short_side(data) == HEIGHT
    assert close(data, 2 if kind == "JPEG" else 1e-9)


def test_a_progressive_jpeg_is_that_of_one_scan():
    plain, progressive = (file(scene(), "JPEG", progressive=how) for how in (False, True))
    np.testing.assert_array_equal(pixels(plain), pixels(progressive))


@pytest.mark.parametrize("kind", LOSSLESS)
def test_a_palette_and_grey_show_their_colours(kind):
    palette = scene().quantize(64)
    np.testing.assert_array_equal(pixels(file(palette, kind)), np.asarray(palette.convert("RGB")))
    grey = scene("L")
    np.testing.assert_array_equal(pixels(file(grey, kind)), np.asarray(grey.convert("RGB")))
    black_and_white = scene("1")
    np.testing.assert_array_equal(
        pixels(file(black_and_white, kind)), np.asarray(black_and_white.convert("RGB"))
    )


def test_inks_are_colours():
    assert close(file(scene("CMYK"), "JPEG", quality=95), 3)
    assert close(file(scene("CMYK"), "TIFF"), 1e-9)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_grey_of_16_bits_is_rescaled(kind):
    grey = np.asarray(scene("L"), dtype=np.uint16)
    image = Pillow.fromarray(grey * 257)
    np.testing.assert_array_equal(pixels(file(image, kind))[..., 0], grey)
    big_endian = Pillow.frombytes("I;16B", image.size, (grey * 257).astype(">u2").tobytes())
    if kind == "TIFF":
        np.testing.assert_array_equal(pixels(file(big_endian, kind))[..., 1], grey)


def test_grey_of_16_bits_may_begin_at_white():
    values = np.asarray(scene("L"), dtype=np.uint16) * 257
    tags = ImageFileDirectory_v2()
    tags[262] = 0
    data = file(Pillow.fromarray(values), "TIFF", tiffinfo=tags)
    with Pillow.open(io.BytesIO(data)) as image:
        begins_at_white = image.tag_v2[262] == 0
    stored = np.asarray(scene("L"), dtype=np.int64)
    expected = 255 - stored if begins_at_white else stored
    np.testing.assert_array_equal(pixels(data)[..., 2], expected)


@pytest.mark.parametrize("mode", ["F", "I"])
def test_values_without_a_range_are_refused(mode):
    image = Pillow.fromarray(np.asarray(scene("L"), dtype=np.int32)).convert(mode)
    assert "32 bits" in refused(file(image, "TIFF"))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_what_is_transparent_lies_over_white(kind):
    image = scene("RGBA")
    alpha = np.full((HEIGHT, WIDTH), 255, dtype=np.uint8)
    alpha[:10], alpha[10:20] = 0, 102
    image.putalpha(Pillow.fromarray(alpha))
    how = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    share = alpha[..., None] / 255
    expected = np.asarray(scene()) * share + 255 * (1 - share)
    np.testing.assert_allclose(pixels(file(image, kind, **how)), expected, atol=1)


def test_a_colour_that_stands_for_nothing_is_white():
    image = scene().quantize(64)
    nothing = image.getpixel((5, 5))
    shown = pixels(file(image, "PNG", transparency=nothing))
    hidden = np.asarray(image) == nothing
    assert (shown[hidden] == 255).all()
    np.testing.assert_array_equal(shown[~hidden], np.asarray(image.convert("RGB"))[~hidden])


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_format_is_turned_as_exif_says(kind, orientation):
    stored = scene().transpose(STORED[orientation]) if orientation > 1 else scene()
    exif = Pillow.Exif()
    exif[ORIENTATION], exif[0x010E] = orientation, "Jane Doe"
    how = {"lossless": True} if kind == "WEBP" else {}
    data = file(stored, kind, exif=exif, **how)
    assert b"Jane Doe" in data
    assert close(data, 3 if kind == "JPEG" else 1e-9)
    assert not decode(data, WIDTH).info


def test_of_an_mpo_the_first_image_is_taken_and_several_frames_are_refused():
    other = Pillow.new("RGB", (WIDTH, HEIGHT), "red")
    assert close(file(scene(), "MPO", save_all=True, append_images=[other.copy()]), 3)
    for kind in ("PNG", "TIFF", "WEBP"):
        data = file(scene(), kind, save_all=True, append_images=[other.copy()])
        assert refused(data) == f"a {kind} of several frames; save the right one by itself"


def test_damaged_profiles_and_exif_do_not_hide_an_image():
    for kind in ("JPEG", "PNG", "TIFF", "WEBP"):
        how = {"lossless": True} if kind == "WEBP" else {}
        data = file(scene(), kind, icc_profile=b"\0no profile" * 9, **how)
        assert close(data, 3 if kind == "JPEG" else 1e-9)
    broken = b"Exif\0\0MM\0*\xff\xff\xff\xff" + b"\xee" * 40
    assert close(file(scene(), "JPEG", exif=broken), 3)
    chunk = b"iCCP" + b"name\0\0" + b"not compressed"
    framed = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    png = file(scene())
    assert close(png[:33] + framed + png[33:], 1e-9)


@pytest.mark.parametrize("kind", FORMATS)
def test_what_is_cut_off_is_refused(kind):
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    data = file(Pillow.fromarray(noise), kind)
    for length in range(0, len(data) - 100, 997):
        assert refused(data[:length])


def test_what_is_too_small_or_no_image_is_refused_by_name():
    data = file(Pillow.new("RGB", (1000, LEAST_SIDE - 1)))
    assert refused(data) == "an image of 1000x63 pixels; its shorter side must have 64"
    assert decode(file(Pillow.new("RGB", (LEAST_SIDE, LEAST_SIDE))), 224).size == (64, 64)
    with pytest.raises(DataError, match="1000x63"):
        short_side(data)
    for other in (b"", b"GIF89a", b"%PDF-1.7", file(scene(), "GIF"), b"\xff\xd8\xff"):
        assert "(no image, or a damaged one); use JPEG" in refused(other)


@pytest.mark.parametrize("side", [9_000, 12_000, 60_000])
def test_a_bomb_is_refused_before_it_is_unpacked(side):
    data = bytearray(file(scene()))
    data[16:24] = struct.pack(">II", side, side)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    assert f"at most {MOST_PIXELS // 1_000_000} million are read" in refused(bytes(data))


def test_a_jpeg_of_endless_scans_is_refused():
    data = file(scene(), "JPEG", progressive=True)
    scan = data[data.rindex(b"\xff\xda") : -2]
    assert "too many scans" in refused(data[:-2] + scan * 200 + data[-2:])


def test_a_large_image_is_reduced_to_the_scale_of_a_jpeg():
    large = scene().resize((8 * WIDTH, 8 * HEIGHT))
    for size, expected in ((HEIGHT, 1), (HEIGHT + 1, 2), (8 * HEIGHT, 8), (9 * HEIGHT, 8)):
        for kind in ("JPEG", "PNG"):
            assert decode(file(large, kind), size).size == (expected * WIDTH, expected * HEIGHT)


@pytest.mark.parametrize(("width", "height", "size"), [(603, 451, 224), (603, 451, 70)])
def test_a_png_is_decoded_as_the_jpeg_of_the_same_pixels(width, height, size):
    data = file(scene().resize((width, height)), "JPEG")
    same = file(Pillow.open(io.BytesIO(data)).convert("RGB"))
    jpeg, png = decode(data, size), decode(same, size)
    assert png.size == jpeg.size
    difference = np.abs(np.asarray(png, np.float64) - np.asarray(jpeg, np.float64))
    assert difference.mean() < 1


SEEDS = [
    *(file(scene(), kind) for kind in FORMATS),
    file(scene(), "JPEG", progressive=True),
    file(scene("CMYK"), "JPEG"),
    file(scene().quantize(16)),
    file(scene("RGBA"), "TIFF", compression="tiff_lzw"),
    file(scene(), "TIFF", compression="jpeg"),
    file(Pillow.fromarray(np.asarray(scene("L"), dtype=np.uint16) * 257)),
]


@given(st.sampled_from(SEEDS), st.lists(st.tuples(st.floats(0, 1), st.binary(max_size=12))))
def test_mutated_files_are_images_or_refused(data, changes):
    for place, damage in changes:
        start = int(place * len(data))
        data = data[:start] + damage + data[start + len(damage) :]
    _is_image_or_refused(data)


@given(st.sampled_from([b"", *(seed[:16] for seed in SEEDS), bytes(128) + b"DICM"]), st.binary())
def test_random_bytes_are_refused(start, data):
    _is_image_or_refused(start + data)


def _is_image_or_refused(data: bytes) -> None:
    try:
        image = decode(data, 64)
    except DataError as error:
        why = str(error)
    else:
        assert image.mode == "RGB"
        assert min(image.size) >= LEAST_SIDE
        return
    assert why
    assert why.isprintable()


MEMORY = """
import io, resource, sys
from concurrent.futures import ThreadPoolExecutor
from PIL import Image
from common.data.pictures import decode
data = open(sys.argv[1], "rb").read()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with ThreadPoolExecutor(8) as pool:
    sizes = set(pool.map(lambda _: decode(data, 224).size, range(8)))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024, sizes)
"""


def test_many_threads_take_no_more_memory_than_one_image(tmp_path: Path):
    """Images of 20 million pixels with transparency, 80 MB each as they are unpacked."""
    path = tmp_path / "large.png"
    path.write_bytes(file(Pillow.new("RGBA", (5000, 4000), (200, 100, 50, 128)), compress_level=1))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(path)],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    megabytes, sizes = done.stdout.split(maxsplit=1)
    assert int(megabytes) < 900
    assert sizes.strip() == "{(625, 500)}"
