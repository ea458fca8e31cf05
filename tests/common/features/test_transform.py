"""The working image: the same from every camera's file of the same scene."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow

from common.data.pictures import decode, short_side
from common.errors import ConfigError, DataError
from common.features.augment import prediction_view
from common.features.transform import Transform, balanced, reduced


def _scene(width: int, height: int) -> Pillow.Image:
    """Draw a smooth scene: the same, but for sampling, at every size."""
    y, x = np.mgrid[0.5 / height : 1 : 1 / height, 0.5 / width : 1 : 1 / width][:, :height, :width]
    waves = [np.sin(7 * x + 3 * y), np.cos(9 * y - 2 * x), np.sin(11 * x * y)]
    return Pillow.fromarray((127 + 90 * np.stack(waves, axis=2)).astype(np.uint8))


def _file(image: Pillow.Image, kind: str = "JPEG") -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **({"quality": 95} if kind == "JPEG" else {}))
    return file.getvalue()


def _array(image: Pillow.Image) -> np.ndarray:
    return np.asarray(image, dtype=np.float64)


@pytest.mark.parametrize("resolution", [112, 225])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("number", [0, 1])
def test_two_cameras_give_the_same_views_of_a_scene(resolution, kind, number) -> None:
    transform = Transform(resolution)
    one, two = (transform.image(_file(_scene(*size), kind)) for size in ((300, 225), (1200, 900)))
    assert min(one.size) == min(two.size) == resolution
    views = [_array(prediction_view(image, number, 224)) for image in (one, two)]
    assert np.abs(views[0] - views[1]).mean() < 1.5


def test_fine_detail_is_averaged_not_aliased() -> None:
    """Stripes of one pixel are grey at half the size, in whatever format they come."""
    stripes = np.zeros((450, 600, 3), np.uint8)
    stripes[:, ::2] = 255
    for kind in ("JPEG", "PNG"):
        image = Transform(225).image(_file(Pillow.fromarray(stripes), kind))
        inner = _array(image)[10:-10, 10:-10]
        assert np.abs(inner - 127.5).max() < 8


@given(st.integers(32, 400), st.integers(32, 400), st.integers(32, 300))
def test_the_short_side_is_reduced_and_never_enlarged(width, height, resolution) -> None:
    image = Pillow.new("RGB", (width, height), (9, 8, 7))
    found = reduced(image, resolution)
    short = min(width, height)
    assert min(found.size) == min(short, resolution)
    assert abs(max(found.size) - max(width, height) * min(found.size) / short) <= 1


def test_an_image_of_the_default_resolution_is_left_bit_for_bit() -> None:
    data = _file(_scene(300, 225))
    np.testing.assert_array_equal(Transform().image(data), decode(data, 224))


@pytest.mark.parametrize("size", [(300, 225), (900, 1200)])
def test_an_image_saved_at_the_resolution_without_loss_is_what_a_larger_one_becomes(size) -> None:
    working = Transform(112).image(_file(_scene(*size), "PNG"))
    np.testing.assert_array_equal(Transform(112).image(_file(working, "PNG")), working)


@pytest.mark.parametrize("colour", ["grey-world", "shades-of-gray"])
def test_constancy_takes_out_a_coloured_light(colour) -> None:
    """The same scene under two lights; gains of 1 at most, so that nothing is cut off."""
    scene = _array(_scene(120, 90))
    lights = ([1.0, 1.0, 1.0], [0.9, 0.7, 0.5])
    white, warm = (
        _array(balanced(Pillow.fromarray(np.round(scene * light * 0.6).astype(np.uint8)), colour))
        for light in lights
    )
    ratio = (warm / warm.mean()) / np.maximum(white / white.mean(), 1e-9)
    assert np.median(np.abs(ratio[white > 30] - 1)) < 0.03


def test_grey_world_gives_channels_one_mean_and_shades_of_gray_one_norm() -> None:
    """Finlayson and Trezzi's estimate, computed from the pixels themselves."""
    image = Pillow.fromarray((_array(_scene(120, 90)) * [0.9, 0.6, 0.4] * 0.7).astype(np.uint8))
    for colour, p in (("grey-world", 1), ("shades-of-gray", 6)):
        values = _array(balanced(image, colour)).reshape(-1, 3)
        light = (values**p).mean(axis=0) ** (1 / p)
        np.testing.assert_allclose(light, light.mean(), rtol=0.01)
    assert balanced(image, "none") is image


def test_a_channel_without_light_stays_dark() -> None:
    pixels = np.zeros((40, 40, 3), np.uint8)
    pixels[..., 0] = 100
    found = _array(balanced(Pillow.fromarray(pixels), "grey-world"))
    assert np.isfinite(found).all()
    assert not found[..., 1:].any()


def test_the_header_tells_the_short_side() -> None:
    data = _file(_scene(300, 225))
    assert short_side(data) == 225
    assert [Transform(n).lacks_pixels(data) for n in (224, 225, 226)] == [False, False, True]
    with pytest.raises(DataError, match="cannot be decoded"):
        short_side(b"GIF89a")


@pytest.mark.parametrize("change", [{"resolution": 31}, {"colour": "sepia"}])
def test_refuses_impossible_values(change) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(change))} is "):
        Transform(**change)
