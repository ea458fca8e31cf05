"""Numbers and tables as every report writes them; a site's own words stay its own."""

import math

import pytest

from common.formats import between, estimate, markdown, markdown_table, rounded


@pytest.mark.parametrize(
    ("value", "text"), [(0.12345, "0.123"), (1, "1.000"), (None, "-"), (math.nan, "-")]
)
def test_a_number_has_three_decimals_or_is_missing(value: float | None, text: str) -> None:
    assert rounded(value) == text


def test_layouts_are_those_of_format_strings() -> None:
    assert rounded(None, missing="n/a") == "n/a"
    assert rounded(0.0456, ".2%") == "4.56%"
    assert between((-0.02, 0.0311), "+.3f") == "-0.020 to +0.031"


def test_an_estimate_has_its_interval_in_brackets() -> None:
    assert estimate(0.5, (0.4, 0.6)) == "0.500 (0.400 to 0.600)"
    assert estimate(0.5, (math.nan, math.nan)) == "0.500 (- to -)"


@pytest.mark.parametrize(
    "word", ["a\n# b", "<img src=x>", "a | b", "[a](b)", "`a`", "\x1b[2J\u202e"]
)
def test_a_sites_words_are_shown_as_they_stand(word: str) -> None:
    shown = markdown(word)
    assert shown.isprintable()
    for character in "<>|[]`":
        assert shown.count(character) == shown.count(f"\\{character}") == word.count(character)


def test_a_cell_makes_no_other_cells_or_rows() -> None:
    table = markdown_table(("a", "b"), [("one | two", "three\n| four"), (1, 0.5)])
    assert table.splitlines() == [
        "| a | b |",
        "| --- | --- |",
        r"| one \| two | three\\n\| four |",
        "| 1 | 0.5 |",
    ]
