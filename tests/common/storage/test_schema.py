"""Steps from version to version are done once each, in their order, and again after a crash."""

from pathlib import Path

import pytest

from common.storage.schema import FILE, Schema


def noting(word: str):
    def step(folder: Path) -> None:
        with (folder / "done").open("a") as file:
            file.write(word)

    return step


def failing(folder: Path) -> None:
    raise OSError("no room")


def test_steps_are_done_once_and_in_order(tmp_path):
    folder = tmp_path / "new"
    Schema("x", (noting("a"),)).upgrade(folder)
    longer = Schema("x", (noting("never"), noting("b"), noting("c")))
    longer.upgrade(folder)
    longer.upgrade(folder)
    assert (folder / "done").read_text() == "abc"
    assert (folder / FILE).read_text() == "3"


def test_after_a_crash_it_goes_on_at_the_step_that_was_not_done(tmp_path):
    with pytest.raises(OSError, match="no room"):
        Schema("x", (noting("a"), failing)).upgrade(tmp_path)
    assert (tmp_path / FILE).read_text() == "1"
    Schema("x", (noting("never"), noting("b"))).upgrade(tmp_path)
    assert (tmp_path / "done").read_text() == "ab"
