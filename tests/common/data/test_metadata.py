"""What is known of a patient becomes numbers; what would give the diagnosis away is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import mutual_info_score

from common.config.run import RunConfig
from common.data.metadata import (
    BLOCKS,
    UNKNOWN,
    About,
    as_unknown,
    check_columns,
    dropped,
    encode,
    information,
    width,
)
from common.errors import ConfigError

COLUMNS = tuple(BLOCKS)
ABOUT = st.builds(
    About,
    age=st.none() | st.floats(allow_nan=False),
    sex=st.sampled_from(["female", "Male", "", "other", "unknown", "Anna"]),
    localization=st.sampled_from(["back", "Face", "", "the left one", "missing"]),
)


@given(st.lists(ABOUT, min_size=1, max_size=5))
def test_each_column_adds_to_one_and_what_is_in_no_list_is_unknown(rows: list[About]) -> None:
    numbers, start = encode(COLUMNS, rows), 0
    assert numbers.shape == (len(rows), width(COLUMNS))
    for column in COLUMNS:
        block = numbers[:, start : (start := start + len(BLOCKS[column]))]
        assert block.min() >= 0
        np.testing.assert_allclose(block.sum(axis=1), 1, rtol=1e-6)
    sexes = encode(("sex",), rows)
    listed = [row.sex.lower() in ("female", "male") for row in rows]
    np.testing.assert_array_equal(sexes[:, -1] == 0, listed)


def test_an_age_lies_between_two_decades_and_an_impossible_one_is_unknown() -> None:
    ages = encode(("age",), [About(age=a) for a in (0, 45, 92, 200, -1)])
    assert ages[0, 0] == 1
    np.testing.assert_allclose(ages[1, 4:6], [0.5, 0.5])
    assert ages[2, -2] == 1
    assert ages[3, -1] == ages[4, -1] == 1


def test_a_category_that_was_never_seen_is_unknown() -> None:
    rows = [About(sex="female"), About(sex="male"), UNKNOWN]
    found = as_unknown(("sex",), encode(("sex",), rows), np.array([True, False, True]))
    np.testing.assert_array_equal(found, encode(("sex",), [rows[0], UNKNOWN, UNKNOWN]))


@given(st.permutations(range(6)), st.floats(0, 0.99))
def test_what_is_dropped_does_not_depend_on_where_an_image_lies(
    order: list[int], share: float
) -> None:
    contents = [f"{n:x}" for n in range(10, 16)]
    there = dropped([contents[n] for n in order], 3, share, 1)
    np.testing.assert_array_equal(there, dropped(contents, 3, share, 1)[order])


@pytest.mark.parametrize("column", ["dx_type", "biopsed", "dataset", "dx", "follow_up"])
def test_what_gives_the_diagnosis_or_the_site_away_is_no_input(column: str) -> None:
    """Without this a model would read the answer off the table."""
    with pytest.raises(ValueError, match=f"{column} cannot be an input"):
        check_columns([column])
    with pytest.raises(ConfigError, match=f"'metadata'.*{column} cannot be an input"):
        RunConfig.read({"metadata": f"age,{column}"})


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=2, max_size=40))
def test_the_information_is_that_of_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    rows = [About(sex=("female", "male", "")[sex]) for _, sex in pairs]
    labels = np.array([label for label, _ in pairs])
    sums = np.stack([encode(("sex",), rows)[labels == k].sum(axis=0) for k in range(3)])
    known = [(label, sex) for label, sex in pairs if sex < 2]
    y, x = np.array(known).reshape(-1, 2).T
    entropy = mutual_info_score(y, y) if known else 0.0
    expected = mutual_info_score(y, x) / entropy if entropy > 1e-12 else 0.0
    assert information(("sex",), sums)["sex"] == pytest.approx(expected, abs=1e-6)
