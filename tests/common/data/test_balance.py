"""Groups count alike within each diagnosis, by weights that do not depend on where lesions lie."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.config.run import RunConfig
from common.data.balance import MOST_WEIGHT, BalancedGroups, GroupImages
from common.data.image import Image
from common.errors import ConfigError
from common.task import HAM10000

SEXES = ("female", "male", "", "Anna")
IMAGES = st.builds(
    lambda dx, sex, age: Image(
        image_id="i", lesion_id="l", dx=dx, dx_type="", age=age, sex=sex, localization=""
    ),
    st.sampled_from(["mel", "nv"]),
    st.sampled_from(SEXES),
    st.none() | st.sampled_from([5.0, 39.0, 40.0, 85.0]),
)


def _counts(groups: BalancedGroups, images: list[Image]) -> GroupImages:
    labels = np.array([HAM10000.codes.index(image.dx) for image in images], dtype=np.int64)
    return GroupImages.measure(labels, groups.of(images, HAM10000), 7, groups.size)


@given(st.lists(st.tuples(st.integers(0, 2), IMAGES), min_size=1, max_size=60))
def test_any_partition_gives_weights_under_which_known_groups_count_alike(
    dealt: list[tuple[int, Image]],
) -> None:
    groups, images = BalancedGroups.read("sex*age:40"), [image for _, image in dealt]
    parts = [[image for site, image in dealt if site == n] for n in range(3)]
    total = sum((_counts(groups, part) for part in parts), GroupImages.zero(7, groups.size))
    weights = groups.weights(total.images)
    labels = [HAM10000.codes.index(image.dx) for image in images]
    of_image = weights[labels, groups.of(images, HAM10000)]
    for dx in {image.dx for image in images}:
        has: Counter[str] = Counter()
        weighs: Counter[str] = Counter()
        for image, weight in zip(images, of_image, strict=True):
            if image.dx == dx:
                known = image.sex in ("female", "male") and image.age is not None
                group = f"{image.sex} {image.age < 40}" if known and image.age else ""
                has[group] += 1
                weighs[group] += float(weight)
        assert weighs.total() == pytest.approx(has.total())
        level = max(weighs.values())
        for group, number in has.items():
            most = number * (MOST_WEIGHT if group else 1)
            assert weighs[group] == pytest.approx(min(level, most))


def test_a_small_group_is_capped_and_an_unknown_one_weighs_no_more_than_an_average_lesion() -> None:
    sexes = BalancedGroups.read("sex")
    counts = np.array([[2, 98, 20], [30, 10, 0], [0, 7, 3]])
    expected = [[5, 90 / 98, 1], [20 / 30, 2, 1], [1, 1, 1]]
    np.testing.assert_allclose(sexes.weights(counts), expected)
    assert sexes.capped(counts) == 1
    ages = BalancedGroups.read("age:30,60")
    decades = np.array([[1, 0, 2, 3, 0, 0, 0, 0, 0, 0, 4]])
    np.testing.assert_allclose(ages.weights(decades), [[10 / 9] * 6 + [1] * 4 + [10 / 12]])
    np.testing.assert_array_equal(ages.together(decades), [[3, 3, 0, 4]])


def test_each_listed_word_is_a_group_and_the_others_are_unknown() -> None:
    tones = BalancedGroups.read("skin_tone")
    image = Image("i", "l", "nv", "", None, "", "")
    words = ("fitzpatrick 1", "milk10k 5", "", "pale")
    found = tones.of([replace(image, skin_tone=word) for word in words], HAM10000)
    assert found.tolist() == [0, 11, 12, 12]
    assert BalancedGroups.read("sex*localization").size == 2 * 26 + 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"balance_groups": "sex,age"}, "write one, or cross two as sex*age"),
        ({"balance_groups": "site"}, "'strategy=qfedavg' is for sites"),
        ({"balance_groups": "dx_type"}, "take from sex, age, localization, skin_tone"),
        (
            {"balance_groups": "age:45"},
            "an edge of ages at 45, but hospitals count ages by decades",
        ),
        ({"balance_groups": "sex", "head": "lda"}, "all images weigh alike; set head=svm"),
        ({"balance_groups": "sex", "method": "private"}, "would take their share of epsilon"),
        (
            {"method": "finetune", "strategy": "qfedavg", "robust": "median", "hostile": 1},
            "'robust' is median, but with strategy qfedavg a site that claims a large loss",
        ),
    ],
)
def test_what_cannot_be_balanced_is_refused_in_one_line(values, message) -> None:
    with pytest.raises(ConfigError) as refusal:
        RunConfig.read(values)
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


@given(st.lists(st.integers(0, 10**7), min_size=21, max_size=21))
def test_no_counts_single_out_a_group(counts: list[int]) -> None:
    """A coordinator that gives false ones moves weights by no more than a known factor."""
    weights = BalancedGroups.read("sex*age:40,60").weights(np.array([counts]))
    assert weights.max() <= MOST_WEIGHT
    assert weights.max() <= weights.min() * MOST_WEIGHT * 7 * (1 + 1e-9)
