"""The individual typology angle is that of the skin's colour, whatever the lesion is."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow
from skimage.color import lab2rgb, rgb2lab

from simulations.data.skin_tone import CATEGORIES, WAYS, category, lab

SHAPE = (225, 300)


def skin(lightness: float, yellowness: float) -> np.ndarray:
    """Return a picture of one colour, as skimage makes it from L*a*b*."""
    colour = lab2rgb(np.array([[[lightness, 10.0, yellowness]]]))
    return np.broadcast_to(np.round(255 * colour), (*SHAPE, 3)).astype(np.uint8)


def test_lab_is_skimages():
    rgb = np.random.default_rng(0).integers(256, size=(40, 50, 3), dtype=np.uint8)
    np.testing.assert_allclose(lab(rgb), rgb2lab(rgb), atol=0.02)


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize(("lightness", "yellowness"), [(70, 15), (60, 20), (45, 18), (30, 12)])
def test_skin_of_one_colour_has_its_angle(way, lightness, yellowness):
    picture = Pillow.fromarray(skin(lightness, yellowness))
    expected = np.degrees(np.arctan((lightness - 50) / yellowness))
    assert way(picture, None) == pytest.approx(expected, abs=1.5)
    assert way(picture, np.zeros(SHAPE, dtype=bool)) == pytest.approx(expected, abs=1.5)


@settings(deadline=None, max_examples=25)
@given(
    y=st.integers(0, 165), x=st.integers(0, 220), size=st.integers(5, 60), dark=st.integers(0, 255)
)
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_lesion_under_its_mask_changes_nothing_wherever_it_lies(way, y, x, size, dark):
    plain = skin(65, 16)
    lesion = np.zeros(SHAPE, dtype=bool)
    lesion[y : y + size, x : x + size] = True
    inside = lesion.copy()
    inside[y, :] = inside[y + size - 1, :] = inside[:, x] = inside[:, x + size - 1] = False
    picture = plain.copy()
    picture[inside] = (dark, dark // 2, 255 - dark)
    found = way(Pillow.fromarray(picture), lesion)
    assert found == pytest.approx(way(Pillow.fromarray(plain), None), abs=0.01)


def test_a_picture_that_is_all_lesion_has_no_angle():
    everything = np.ones(SHAPE, dtype=bool)
    assert {way(Pillow.fromarray(skin(60, 15)), everything) for way in WAYS.values()} == {None}


def test_hair_is_no_skin_and_patches_take_the_lightest():
    picture = skin(60, 16).copy()
    picture[:, 150:] = skin(40, 16)[0, 0]
    light = WAYS["patches"](Pillow.fromarray(skin(60, 16)), None)
    assert WAYS["patches"](Pillow.fromarray(picture), None) == pytest.approx(light, abs=0.01)
    picture[::12] = 20
    assert WAYS["patches"](Pillow.fromarray(picture), None) == pytest.approx(light, abs=2)


def test_an_edge_belongs_to_the_darker_category():
    found = category(np.array([-31, -30, -29, 10, 28, 41, 55, 55.1]))
    names = ["dark", "dark", "brown", "brown", "tan", "intermediate", "light", "very-light"]
    assert [CATEGORIES[k].replace(" ", "-") for k in found] == names
