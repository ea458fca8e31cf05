"""Views are pure functions of image, configuration, seed, content key and number."""

import io
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image as Pillow

from common.errors import ConfigError
from common.features.augment import (
    CROPS,
    PREDICTION_VIEWS,
    STRONG,
    Augmentation,
    augmented_view,
    normalise,
    prediction_view,
)

CONTENT = "ab" * 32
STILL = Augmentation(least_crop=1, shift=0, brightness=0, contrast=0, saturation=0)


def _image(width: int = 60, height: int = 45) -> Pillow.Image:
    noise = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Pillow.fromarray(noise).resize((width, height))


def _file(image: Pillow.Image, kind: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def _view(
    number: int, content: str = CONTENT, seed: int = 0, how: Augmentation | None = None
) -> NDArray[np.uint8]:
    how = how or Augmentation()
    return np.asarray(augmented_view(_image(), content, number, seed, 32, how))


def test_views_are_repeatable_in_any_order_and_thread() -> None:
    alone = [_view(number) for number in range(8)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(_view, reversed(range(8))))
    np.testing.assert_array_equal(alone, together[::-1])


def test_number_seed_content_and_configuration_each_change_a_view() -> None:
    views = [
        _view(0),
        _view(1),
        _view(0, seed=1),
        _view(0, content="cd" * 32),
        _view(0, how=replace(Augmentation(), contrast=0.3)),
    ]
    assert len({view.tobytes() for view in views}) == len(views)


def test_without_crop_and_colours_there_are_the_eight_symmetries_of_a_square() -> None:
    image = _image(40, 40)
    views = {
        np.asarray(augmented_view(image, CONTENT, n, 0, 40, STILL)).tobytes() for n in range(100)
    }
    square = np.asarray(image)
    turned = [np.rot90(square, quarter) for quarter in range(4)]
    assert views == {t.tobytes() for t in turned} | {t[:, ::-1].tobytes() for t in turned}


def test_crops_of_augmented_views_stay_near_the_centre() -> None:
    image = Pillow.new("RGB", (600, 450))
    image.paste((255, 255, 255), (270, 195, 330, 255))  # what every view must show
    for number in range(200):
        view = np.asarray(augmented_view(image, CONTENT, number, 0, 60, Augmentation()))
        assert view.max() > 150, number


def test_prediction_views_are_centre_crops_then_their_mirror_images() -> None:
    image = _image(60, 40)
    views = [np.asarray(prediction_view(image, n, 40)) for n in range(PREDICTION_VIEWS)]
    half = len(views) // 2
    np.testing.assert_array_equal(views[0], np.asarray(image.crop((10, 0, 50, 40))))
    close = image.crop((20, 10, 40, 30)).resize((40, 40), Pillow.Resampling.BICUBIC)
    np.testing.assert_array_equal(views[1], np.asarray(close))
    for plain, mirrored in zip(views[:half], views[half:], strict=True):
        np.testing.assert_array_equal(mirrored, plain[:, ::-1])


@settings(max_examples=60)
@given(
    width=st.integers(1, 90),
    height=st.integers(1, 90),
    number=st.integers(0, PREDICTION_VIEWS - 1),
    size=st.integers(1, 70),
)
def test_prediction_views_are_those_of_torchvision(width, height, number, size) -> None:
    import common.features.torchvision_ops  # noqa: F401  (before torchvision)

    from torchvision.transforms.v2 import functional, InterpolationMode  # isort: skip

    image = _image(width, height)
    side = round(min(width, height) * CROPS[number % len(CROPS)])
    left, top = (int(np.round((room - side) / 2)) for room in (width, height))
    box, bicubic = (top, left, side, side), InterpolationMode.BICUBIC
    expected = functional.resized_crop(image, *box, [size, size], bicubic)
    expected = functional.horizontal_flip(expected) if number >= len(CROPS) else expected
    np.testing.assert_array_equal(prediction_view(image, number, size), expected)


@pytest.mark.parametrize(("width", "height"), [(20, 500), (500, 20), (7, 7)])
def test_views_of_any_shape_are_square(width: int, height: int) -> None:
    image = _image(width, height)
    assert augmented_view(image, CONTENT, 0, 0, 32, Augmentation()).size == (32, 32)
    assert prediction_view(image, 0, 32).size == (32, 32)


def test_normalises_channels_first() -> None:
    image = _image(4, 3)
    values = normalise(image, (0.5, 0.4, 0.3), (0.5, 0.2, 0.1))
    expected = (np.asarray(image) / 255 - [0.5, 0.4, 0.3]) / [0.5, 0.2, 0.1]
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, expected.transpose(2, 0, 1), atol=1e-6)
    # To the last bit these operations: kept features and models depend on them.
    scale = np.divide(1 / 255, (0.5, 0.2, 0.1), dtype=np.float32)
    shift = np.divide((0.5, 0.4, 0.3), (0.5, 0.2, 0.1), dtype=np.float32)
    exact = np.asarray(image, dtype=np.float32) * scale - shift
    np.testing.assert_array_equal(values, exact.transpose(2, 0, 1))


@pytest.mark.parametrize(
    "change",
    [{"least_crop": 0}, {"least_crop": 1.1}, {"shift": 1}, {"brightness": 1}, {"contrast": -0.1}],
)
def test_refuses_impossible_values(change: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(change))} is "):
        Augmentation(**change)


def test_strong_views_are_repeatable_and_differ_more() -> None:
    alone = [_view(number, how=STRONG) for number in range(8)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(partial(_view, how=STRONG), reversed(range(8))))
    np.testing.assert_array_equal(alone, together[::-1])
    assert len({view.tobytes() for view in alone}) == 8


def test_a_view_by_any_angle_turns_what_a_view_by_quarter_turns_shows() -> None:
    """Where the angle is small the middle is where it was; a turn moves a mark as it should."""
    image = Pillow.new("RGB", (60, 60))
    image.paste((255, 255, 255), (40, 28, 44, 32))  # right of the middle
    radii, angles = [], []
    for number in range(40):
        view = np.asarray(
            augmented_view(image, CONTENT, number, 0, 60, replace(STILL, any_angle=True))
        )
        y, x = np.argwhere(view[..., 0] > 100).mean(axis=0) - 29.5
        radii.append(np.hypot(x, y))
        angles.append(np.arctan2(y, x))
    np.testing.assert_allclose(radii, 12, atol=1)  # 41.5 - 29.5, in whole pixels
    assert np.mean(radii) == pytest.approx(12, abs=0.2)
    assert np.ptp(angles) > np.pi
    assert len(np.unique(np.round(angles, 2))) > 30


@given(st.integers(32, 200), st.integers(32, 200))
@settings(max_examples=20, deadline=None)
def test_beyond_the_image_lies_its_reflection(width: int, height: int) -> None:
    """So an image of one colour gives views of that colour."""
    plain = Pillow.new("RGB", (width, height), (90, 120, 150))
    how = replace(STILL, least_crop=0.5, shift=0.3, stretch=0.2, any_angle=True)
    view = np.asarray(augmented_view(plain, CONTENT, width, height, 32, how))
    assert (view == (90, 120, 150)).all()
