"""The measures of evidence maps, on maps whose answers are known."""

import io
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow

from common.data.dataset import Dataset
from common.data.image import Image
from common.explanations.evidence import Evidence, PooledHead
from common.explanations.overlay import place
from common.features.augment import CROPS, PREDICTION_VIEWS, crop_box
from common.task import HAM10000
from simulations.experiments.explanations.__main__ import main
from simulations.experiments.explanations.curves import GRID, areas, fields, orders
from simulations.experiments.explanations.heads import untrained
from simulations.experiments.explanations.measures import (
    WHOLE,
    locate,
    parts,
    pointing,
    rank_correlation,
    share,
)
from simulations.experiments.explanations.photo import Photo, one_a_lesion
from simulations.experiments.explanations.tables import mean_interval
from tests.examples import examples

WIDTH, HEIGHT = 60, 40
LESION = np.zeros((HEIGHT, WIDTH), dtype=bool)
LESION[10:20, 20:30] = True


def _constant(levels, views, rng):
    """Make a map that is the same everywhere in each level: it says nothing of place."""
    sizes = [int(size) for size in rng.integers(2, 9, levels)]
    return Evidence([np.full((views, n, n), rng.uniform(0.1, 3) / n**2) for n in sizes], 1.0)


def test_a_map_that_is_the_lesion_is_all_inside_and_points_there():
    pixels = LESION.astype(float)
    assert share(pixels, LESION) == pointing(pixels, LESION) == 1
    assert np.isnan(share(-pixels, LESION))  # nothing is positive
    assert share(1 - 2 * pixels, LESION) == pointing(1 - 2 * pixels, LESION) == 0


def test_half_of_the_most_positive_places_count_half():
    pixels = np.zeros((HEIGHT, WIDTH))
    pixels[10, 29], pixels[10, 30] = 0.3, 0.1 + 0.2  # differ by rounding
    assert pointing(pixels, LESION) == 0.5


@examples(60)
@given(
    levels=st.integers(1, 3),
    views=st.integers(1, PREDICTION_VIEWS),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_constant_map_gives_the_lesions_share_of_what_the_views_see(levels, views, seed):
    rng = np.random.default_rng(seed)
    lesion = rng.random((HEIGHT, WIDTH)) < rng.uniform(0.1, 0.9)
    evidence = _constant(levels, views, rng)
    boxes = [crop_box((WIDTH, HEIGHT), number) for number in range(views)]
    seen = [lesion[top:bottom, left:right].mean() for left, top, right, bottom in boxes]
    at = locate(WHOLE, evidence, evidence, lesion)
    assert at.share == at.other == pytest.approx(at.expected)
    assert at.expected == pytest.approx(np.mean(seen))
    assert at.area == lesion.mean()
    for part in parts(evidence):
        if part.crop is not None:
            alone = locate(part, evidence, evidence, lesion)
            assert alone.share == pytest.approx(alone.expected)
            assert alone.expected == pytest.approx(seen[part.crop])


@examples(60)
@given(views=st.integers(2, PREDICTION_VIEWS), seed=st.integers(0, 2**32 - 1))
def test_levels_add_up_to_the_map_and_so_do_crops(views, seed):
    rng = np.random.default_rng(seed)
    evidence = Evidence([rng.normal(size=(views, n, n)) for n in (5, 3, 2)], 1.0)
    whole, *others = ((part, place(part.of(evidence), WIDTH, HEIGHT)) for part in parts(evidence))
    assert len(others) == 3 + min(views, len(CROPS))
    for kind in ("level", "crop"):
        total = sum(pixels for part, pixels in others if getattr(part, kind) is not None)
        np.testing.assert_allclose(total, whole[1], atol=1e-12)


def test_a_map_and_its_negative_agree_on_size_alone():
    rng = np.random.default_rng(0)
    evidence = Evidence([rng.normal(size=(4, 7, 7))], 0.0)
    negative = Evidence([-evidence.cells[0]], 0.0)
    assert rank_correlation(evidence, evidence, 300, 225) == pytest.approx((1, 1))
    assert rank_correlation(evidence, negative, 300, 225) == pytest.approx((-1, 1))
    # Where views overlap there is more of everything: unrelated maps must not agree on that.
    found = [
        rank_correlation(*(Evidence([rng.normal(size=(4, 7, 7))], 0.0) for _ in range(2)), 300, 225)
        for _ in range(40)
    ]
    np.testing.assert_allclose(np.mean(found, axis=0), 0, atol=0.12)


def _photo():
    """Make grey skin with one red field in the largest view, the lesion."""
    pixels = np.full((70, 105, 3), 128, dtype=np.uint8)
    field = list(fields((105, 70)))[9]
    pixels[field] = (255, 0, 0)
    return Photo(Image("i", "l", "nv", "", None, "", ""), pixels, pixels[..., 1] == 0)


def _red(files):
    """Give the probability 1 to an image in which anything is red."""
    opened = (np.asarray(Pillow.open(io.BytesIO(data))) for data in files)
    return np.array([float((pixels[..., 0] == 255).any()) for pixels in opened])


def test_deletion_and_insertion_of_the_one_field_that_counts():
    photo = _photo()
    assert photo.lesion.sum() == 100
    first = orders(photo.lesion.astype(float), photo.size, (0, 0))["by the map"]
    assert first[0] == 9
    found = areas(photo, {"first": first, "last": first[::-1]}, _red)
    # From 1 at no field to 0 at a sixteenth of them; and from 1 at half of them to 0 at all.
    assert found["first"] == pytest.approx((1 / 32, 31 / 32))
    assert found["last"] == pytest.approx((3 / 4, 1 / 4))


def test_orders_are_permutations_and_the_middle_comes_first():
    by = orders(np.random.default_rng(0).normal(size=(70, 105)), (105, 70), (0, 0))
    assert all(sorted(order) == list(range(GRID**2)) for order in by.values())
    assert by["from the middle"][0] == GRID**2 // 2
    assert set(by["from the middle"][-4:]) == {0, GRID - 1, GRID**2 - GRID, GRID**2 - 1}


def test_untrained_heads_keep_each_levels_weights_or_their_spread():
    weights = np.random.default_rng(0).normal(size=(7, 500)) * ([1.0] * 200 + [10.0] * 300)
    head = PooledHead(weights, np.zeros(500), np.zeros(7))
    permuted, random = untrained(head, [200, 300], 0).values()
    for level in (slice(200), slice(200, 500)):
        for each in permuted:
            columns = {tuple(column) for column in each.weights[:, level].T}
            assert columns == {tuple(column) for column in weights[:, level].T}
        for each in random:
            assert each.weights[:, level].std() == pytest.approx(weights[:, level].std(), rel=0.1)
    assert all(not np.array_equal(each.weights, weights) for each in permuted)


def test_places_of_an_image_are_told_apart():
    photo = _photo()
    pixels = photo.pixels.copy()
    pixels[40:42] = 20  # a hair, across the whole image
    pixels[60:, :20] = (0, 0, 250)
    places = replace(photo, pixels=pixels).places
    assert places["lesion"].sum() == 100
    assert not (places["rim, outside"] & places["lesion"]).any()
    assert (places["lesion"] | places["rim, outside"] | places["farther outside"]).all()
    assert places["hairs and ruler marks"][40:42].all()
    assert not places["hairs and ruler marks"][45:59].any()
    assert places["blue ink"].sum() == 200
    left, _, right, _ = crop_box(photo.size, 0)
    middle = places["corners"][:, left:right]
    assert middle.mean() == pytest.approx(1 - np.pi / 4, abs=0.02)
    assert places["corners"].sum() == middle.sum()


def test_images_are_one_a_lesion_and_rare_diagnoses_as_many_as_others(synthetic_folder):
    dataset = Dataset.open(synthetic_folder)
    chosen = one_a_lesion(dataset, 28, seed=0)
    assert len(set(chosen.lesions)) == len(chosen) == 28
    assert np.bincount(chosen.labels).tolist() == [4] * len(HAM10000.codes)
    every = one_a_lesion(dataset, 1000, seed=0)
    assert len(every) == len(dataset.by_lesion.sizes)
    assert one_a_lesion(replace(dataset, folder=synthetic_folder / "none"), 28, 0).images == ()


def test_each_group_counts_alike_in_a_mean_and_few_have_none():
    values = np.array([0.0] * 90 + [1.0] * 10)
    mean, (low, high) = mean_interval(values, ["a"] * 90 + ["b"] * 10, 0)
    assert mean == low == high == 0.5
    mean, (low, high) = mean_interval(values, ["all"] * 100, 0)
    assert (mean, low, high) == pytest.approx((0.1, 0.1 - 0.059, 0.1 + 0.059), abs=0.015)
    assert np.isnan(mean_interval(np.array([1.0, np.nan] * 4), ["a"] * 8, 0)[0])


def test_a_run_is_checked_on_its_test_images(synthetic_folder, tuned, capsys):
    main(synthetic_folder, tuned, images=5, seed=0)
    out = capsys.readouterr().out
    titles = [line for line in out.splitlines() if line.startswith("## ")]
    assert len(titles) == len(set(titles)) == 8
    assert "| all | 5 |" in out
    assert "| whole map |" in out
