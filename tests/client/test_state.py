"""What a site keeps of a run is there for the round that is asked for, again and again."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import common.storage.whole_files
from client.state import RoundArrays, SiteState
from common.errors import DataError, RefusalError

RUN, OTHER = "0a" * 8, "0b" * 8


def _arrays(number: int) -> dict[str, np.ndarray]:
    return {
        "control/w": np.full((2, 3), number, np.float32),
        "step": np.array(number, np.float32),
    }


def _number(arrays: dict[str, np.ndarray]) -> float | None:
    if not arrays:
        return None
    assert arrays["step"].shape == ()
    assert (arrays["control/w"] == arrays["step"]).all()
    return float(arrays["step"])


def test_a_new_run_has_nothing(tmp_path: Path) -> None:
    assert RoundArrays(tmp_path / "none", RUN).load(5) == {}


@given(rounds=st.lists(st.integers(0, 6), unique=True).map(sorted), repeated=st.booleans())
def test_a_round_gets_what_the_last_one_before_it_left(tmp_path_factory, rounds, repeated):
    state = RoundArrays(tmp_path_factory.mktemp("state"), RUN)
    left = None
    for number in rounds:
        assert _number(state.load(number)) == left
        if repeated:  # the coordinator was killed after it asked, and asks again
            state.save(number + 1, _arrays(99))
            assert _number(state.load(number)) == left
        state.save(number + 1, _arrays(number + 1))
        left = number + 1


def test_what_came_before_is_forgotten(tmp_path: Path) -> None:
    state = RoundArrays(tmp_path, RUN)
    for number in (1, 2, 10):
        state.save(number, _arrays(number))
    assert _number(state.load(9)) == 2
    assert len(list(tmp_path.iterdir())) == 2
    assert _number(state.load(11)) == 10
    assert len(list(tmp_path.iterdir())) == 1


def test_runs_do_not_see_each_other(tmp_path: Path) -> None:
    RoundArrays(tmp_path, RUN).save(1, _arrays(1))
    assert RoundArrays(tmp_path, OTHER).load(3) == {}
    RoundArrays(tmp_path, OTHER).save(1, _arrays(2))
    assert _number(RoundArrays(tmp_path, RUN).load(3)) == 1
    # Not even where one name begins with the other.
    assert RoundArrays(tmp_path, RUN[:4]).load(3) == {}


@pytest.mark.parametrize("run", ["", "../../elsewhere", "*", "0a-1", "/tmp/x", "0A", "x", "0a\n"])
def test_a_name_that_could_lead_elsewhere_is_refused(tmp_path: Path, run: str) -> None:
    with pytest.raises(RefusalError, match="is no name of a run"):
        RoundArrays(tmp_path, run)


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch, function) -> None:
    state = RoundArrays(tmp_path, RUN)
    state.save(1, _arrays(1))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(common.storage.whole_files.os, function, full)
        with pytest.raises(DataError, match="No space left on device"):
            state.save(2, _arrays(2))
    assert _number(state.load(2)) == 1
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("deployed", [True, False])
def test_rounds_are_counted_by_run_and_a_hospital_forgets_none(tmp_path, deployed):
    """Neither a restart of its processes nor a coordinator that joins or closes takes one back."""

    def state() -> SiteState:  # as in a process of its own
        folders = (tmp_path / name for name in ("data", "out", "cache", "own", "seals"))
        return SiteState(*folders, deployed)

    for _ in range(3):
        state().rounds(7).add(limit=3)
    with pytest.raises(
        RefusalError, match="3 rounds were answered in this run, no more may follow"
    ):
        state().rounds(7).add(limit=3)
    with pytest.raises(
        RefusalError, match="3 rounds were answered in this run, no more may follow"
    ):
        state().rounds(7).add(limit=2)
    state().rounds(8).add(limit=3)
    for end in (lambda: state().close(7, finished=True), lambda: state().begin(7)):
        end()
        if deployed:
            with pytest.raises(RefusalError, match="3 rounds were answered"):
                state().rounds(7).add(limit=3)
        else:
            state().rounds(7).add(limit=1)
