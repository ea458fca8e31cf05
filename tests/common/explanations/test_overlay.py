"""An overlay shows evidence where it lies, as blocks, and adds or loses nothing."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow

from common.explanations.evidence import Evidence
from common.explanations.overlay import AGAINST, FOR, caption, overlay, place
from common.features.augment import CROPS, PREDICTION_VIEWS, crop_box, prediction_view
from tests.examples import examples


def _drawn(png: bytes) -> np.ndarray:
    image = Pillow.open(io.BytesIO(png))
    assert (image.format, image.mode) == ("PNG", "RGBA")
    return np.asarray(image)


@examples(100)
@given(
    width=st.integers(8, 90),
    height=st.integers(8, 90),
    views=st.integers(1, PREDICTION_VIEWS),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_pixels_add_up_to_the_cells(width, height, views, seed):
    rng = np.random.default_rng(seed)
    cells = [rng.normal(size=(views, *shape)) for shape in ((7, 7), (3, 5), (1, 1))]
    pixels = place(Evidence(cells, 1.0), width, height)
    assert pixels.shape == (height, width)
    assert pixels.sum() == pytest.approx(sum(each.sum() for each in cells), abs=1e-9)


@pytest.mark.parametrize("number", range(PREDICTION_VIEWS))
def test_a_cell_lies_where_its_view_shows_it(number):
    """What is lit in one cell of a view is where the evidence of that cell is drawn."""
    size, width, height = 64, 96, 80
    evidence = np.zeros((PREDICTION_VIEWS, 4, 4))
    evidence[number, 1, 0] = 2.0
    pixels = place(Evidence([evidence], 0.0), width, height)
    lit = Pillow.fromarray(np.uint8(255 * (pixels > 0))).convert("RGB")
    view = np.asarray(prediction_view(lit, number, size))[..., 0] > 127
    expected = np.zeros((4, 4), dtype=bool)
    expected[1, 0] = True
    cells = view.reshape(4, 16, 4, 16).mean(axis=(1, 3))
    assert (cells[expected] > 0.9).all()
    assert (cells[~expected] < 0.2).all()


def test_each_level_shows_as_blocks_of_its_own_size():
    cells = np.arange(16.0).reshape(1, 4, 4)
    pixels = place(Evidence([cells], 0.0), 80, 80)
    np.testing.assert_allclose(pixels, np.kron(cells[0], np.ones((20, 20))) / 400)


def test_yellow_is_for_and_blue_against_and_what_says_nothing_is_clear():
    pixels = np.zeros((40, 60))
    pixels[10:20, 25:30], pixels[10:20, 30:35] = 0.5, -0.25
    drawn = _drawn(overlay(pixels, 1))
    assert drawn.shape == (40, 60, 4)
    assert (*drawn[15, 27, :3],) == FOR
    assert (*drawn[15, 32, :3],) == AGAINST
    assert 1.9 < drawn[15, 27, 3] / drawn[15, 32, 3] < 2.1
    assert drawn[25, 27, 3] == 0


def test_the_squares_of_the_views_are_outlined_once():
    drawn = _drawn(overlay(np.zeros((80, 100)), PREDICTION_VIEWS))
    seen = {int(x) for x in np.flatnonzero(drawn[40, :, 3])}
    edges = [crop_box((100, 80), number) for number in range(len(CROPS))]
    assert seen == {x for left, _, right, _ in edges for x in (left, right - 1)}


def test_the_caption_says_what_the_colours_mean_and_how_much_there_is():
    text = caption(Evidence([np.full((1, 2, 2), 0.5)], -0.5), "melanoma", "nevus")
    assert "Yellow speaks for melanoma, blue for nevus" in text
    assert "-0.50 that no place adds, it comes to +1.50: melanoma is 4.48 times as likely" in text
    assert "does not outline the lesion" in text
