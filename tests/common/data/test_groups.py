"""Every value falls in a group of a closed list, and images are measured as they look."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow
from scipy import ndimage

from common.data.groups import HISTOGRAMS, MISSING, OTHER, group_of, groups, unlisted
from common.data.image import Image
from common.data.image_measures import measure_image
from common.task import HAM10000, ISIC2019, Task

TEXTS = ("diagnosis", "sex", "localization")


@given(text=st.text())
def test_a_text_of_a_table_names_no_group(text):
    for name in TEXTS:
        names = groups(name, HAM10000)
        group = names[group_of(name, text, HAM10000)]
        assert group in (text.lower(), OTHER, MISSING)
        assert names == groups(name, HAM10000)


@pytest.mark.parametrize(
    ("name", "value", "group"),
    [
        ("age", 0.0, "0 to 9"),
        ("age", 9.5, "0 to 9"),
        ("age", 10.0, "10 to 19"),
        ("age", 85.0, "80 to 89"),
        ("age", 90.0, "90 or more"),
        ("age", None, MISSING),
        ("sex", "Female", "female"),
        ("sex", "unknown", MISSING),
        ("sex", "mrs. smith", OTHER),
        ("localization", "head/neck", "head/neck"),
        ("localization", "", MISSING),
        ("diagnosis", "scc", "scc"),
        ("diagnosis", "MEL", "mel"),
        ("diagnosis", "porokeratosis", OTHER),
        ("short_side", 63, "under 64"),
        ("short_side", 64, "64 to 127"),
        ("short_side", 2000, "2000 or more"),
        ("brightness", 0.25, "0.2 to 0.3"),
    ],
)
def test_values_are_in_the_group_that_names_them(name, value, group):
    assert groups(name, HAM10000)[group_of(name, value, HAM10000)] == group


def test_a_mapped_diagnosis_counts_as_what_it_is_mapped_to():
    task = Task.of(("bcc", "nv"), mapping={"scc": "bcc"})
    assert groups("diagnosis", task)[group_of("diagnosis", "scc", task)] == "bcc"
    assert [code in groups("diagnosis", ISIC2019) for code in ("scc", "benign")] == [True, True]


def test_what_is_in_no_list_is_named_to_the_site():
    rows = [
        Image("1", "a", "nv", "", 3.0, "female", "left knee"),
        Image("2", "a", "nv", "", 3.0, "x", "left knee"),
    ]
    assert unlisted(rows, HAM10000) == {("localization", "left knee"): 2, ("sex", "x"): 1}
    assert set(TEXTS) < set(HISTOGRAMS)


def encoded(grey: np.ndarray, form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Pillow.fromarray(grey.astype(np.uint8)).save(buffer, form)
    return buffer.getvalue()


def test_an_image_is_measured_as_it_looks():
    grey = np.random.default_rng(0).integers(256, size=(80, 100))
    found = measure_image(encoded(grey))
    laplacian = ndimage.laplace(grey.astype(np.float64))[1:-1, 1:-1]
    assert found.short_side == 80
    assert found.brightness == pytest.approx(grey.mean() / 255)
    assert found.sharpness == pytest.approx(laplacian.var(), rel=1e-4)
    assert measure_image(encoded(np.full((64, 64), 51))) == (64, pytest.approx(0.2), 0.0)
    assert measure_image(encoded(np.full((2, 2), 51))) == (2, None, None)


def test_a_larger_picture_of_the_same_is_as_bright_and_about_as_sharp():
    small = ndimage.gaussian_filter(np.random.default_rng(1).random((224, 224)), 2)
    small = 255 * (small - small.min()) / np.ptp(small)
    large = measure_image(encoded(np.kron(small, np.ones((3, 3)))))
    assert large.short_side == 672
    assert large[1:] == pytest.approx(measure_image(encoded(small))[1:], rel=0.02)


@pytest.mark.parametrize("data", [b"", b"no image", encoded(np.eye(300) * 255)[:-60]])
def test_what_cannot_be_decoded_in_full_is_no_picture(data):
    assert measure_image(data) is None
