"""What a card shows of a site's own words."""

import pytest

from server.run.card import markdown, markdown_table


@pytest.mark.parametrize(
    "word", ["a\n# b", "<img src=x>", "a | b", "[a](b)", "`a`", "\x1b[2J\u202e"]
)
def test_a_sites_words_are_shown_as_they_stand(word):
    shown = markdown(word)
    assert shown.isprintable()
    for character in "<>|[]`":
        assert shown.count(character) == shown.count(f"\\{character}") == word.count(character)


def test_a_cell_makes_no_other_cells_or_rows():
    table = markdown_table(("a", "b"), [("one | two", "three\n| four"), (1, 0.5)])
    assert table.splitlines() == [
        "| a | b |",
        "| --- | --- |",
        r"| one \| two | three\\n\| four |",
        "| 1 | 0.5 |",
    ]
