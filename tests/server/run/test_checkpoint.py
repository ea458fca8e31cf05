"""The state of a run survives whatever happens while it is written, and says what is wrong."""

import errno
import json
import os
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import save

import common.storage.whole_files
from common.errors import DataError
from common.storage.verified import pack_arrays
from server.run.checkpoint import Checkpoint

SETTINGS = "cd" * 32
GROUPS = ("weights", "best", "moments")


def _state(next_round: int = 3) -> Checkpoint:
    rng = np.random.default_rng(next_round)
    kernels = rng.standard_normal((4, 3, 3, 3)).astype(np.float32)
    return Checkpoint(
        run="ab" * 8,
        settings=SETTINGS,
        next_round=next_round,
        trained=2,
        counts=[3, 0, 1, 0, 5, 60, 1],
        weights={"head.weight": kernels[0, 0], "backbone.conv.weight": kernels},
        best={"head.weight": kernels[1, 0]},
        moments={"step/head.weight": np.asarray(np.float32(7)), "exp_avg/head.weight": -kernels},
        aggregation={"rounds": np.array(next_round), "m/head.weight": kernels[2]},
        best_score=0.625,
        best_round=2,
        waited=1,
        bytes_sent=10**12,
        bytes_whole=10**13,
    )


def _assert_same(found: Checkpoint, expected: Checkpoint) -> None:
    for each in fields(Checkpoint):
        ours, theirs = getattr(found, each.name), getattr(expected, each.name)
        if isinstance(theirs, dict):
            assert ours.keys() == theirs.keys()
            for name, array in theirs.items():
                np.testing.assert_array_equal(ours[name], array)
                assert (ours[name].shape, ours[name].dtype) == (array.shape, array.dtype), name
        else:
            assert ours == theirs or (ours != ours and theirs != theirs)


def test_a_state_is_read_as_it_was_written(tmp_path: Path) -> None:
    _state().save(tmp_path / "new" / "c")
    _assert_same(Checkpoint.load(tmp_path / "new" / "c", SETTINGS), _state())
    Checkpoint("0", SETTINGS).save(tmp_path / "c")
    _assert_same(Checkpoint.load(tmp_path / "c", SETTINGS), Checkpoint("0", SETTINGS))


def test_a_run_without_validation_images_has_no_score(tmp_path: Path) -> None:
    state = _state()
    state.best_score = float("nan")
    state.save(tmp_path / "c")
    _assert_same(Checkpoint.load(tmp_path / "c", SETTINGS), state)


@given(
    array=hnp.arrays(np.float32, hnp.array_shapes(min_dims=0, min_side=0)),
    name=st.text("abc./:0", min_size=1),
    group=st.sampled_from(GROUPS),
    transposed=st.booleans(),
)
def test_any_array_under_any_name_comes_back(tmp_path_factory, array, name, group, transposed):
    file = tmp_path_factory.mktemp("state") / "c"
    state = Checkpoint("0", SETTINGS)
    getattr(state, group)[name] = array.T if transposed else array
    state.save(file)
    _assert_same(Checkpoint.load(file, SETTINGS), state)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_a_file_cut_short_is_refused_by_name(tmp_path: Path, share: float) -> None:
    file = tmp_path / "checkpoint.safetensors"
    _state().save(file)
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    _assert_refused(file)


def test_a_bit_that_flipped_anywhere_is_noticed(tmp_path: Path) -> None:
    file = tmp_path / "checkpoint.safetensors"
    _state().save(file)
    content = bytearray(file.read_bytes())
    for place in np.random.default_rng(0).choice(len(content), 60, replace=False):
        content[place] ^= 4
        file.write_bytes(content)
        _assert_refused(file)
        content[place] ^= 4
    file.write_bytes(content)
    _assert_same(Checkpoint.load(file, SETTINGS), _state())


def test_a_state_of_another_configuration_is_refused_by_name(tmp_path: Path) -> None:
    _state().save(tmp_path / "c")
    with pytest.raises(DataError, match="c is of another configuration; remove it to begin"):
        Checkpoint.load(tmp_path / "c", "00" * 32)


def _foreign(tensor: str, about: str) -> bytes:
    return pack_arrays({tensor: np.zeros(2)}, json.loads(about))


OTHERS = {
    "no metadata": save({"weights:a": np.zeros(2)}),
    "no digest": save({"best:a": np.zeros(2)}, {"fedderm": '{"run": "0", "settings": "0"}'}),
    "no group": _foreign("a", '{"run": "0", "settings": "0"}'),
    "unknown value": _foreign("best:a", '{"run": "0", "settings": "0", "colour": 3}'),
    "no name": _foreign("best:a", "{}"),
    "no object": save({"best:a": np.zeros(2)}, {"fedderm": "3"}),
    "a value for a group": _foreign("run:a", '{"run": "0", "settings": "0"}'),
    "text": b"the weights",
}


@pytest.mark.parametrize("kind", OTHERS)
def test_a_file_of_another_kind_is_refused_by_name(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "checkpoint.safetensors"
    file.write_bytes(OTHERS[kind])
    _assert_refused(file)


def test_a_folder_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.safetensors").mkdir()
    _assert_refused(tmp_path / "checkpoint.safetensors")


def _assert_refused(file: Path) -> None:
    with pytest.raises(DataError, match=r"checkpoint\.safetensors is no checkpoint") as refusal:
        Checkpoint.load(file, SETTINGS)
    assert "remove it to begin the run anew" in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_what_was_written_before_survives_a_full_disk(tmp_path, monkeypatch, function) -> None:
    file = tmp_path / "checkpoint.safetensors"
    _state(3).save(file)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(common.storage.whole_files.os, function, full)
        with pytest.raises(DataError, match="No space left on device") as refusal:
            _state(4).save(file)
    assert str(tmp_path) in str(refusal.value)
    assert "\n" not in str(refusal.value)
    _assert_same(Checkpoint.load(file, SETTINGS), _state(3))
    assert list(tmp_path.iterdir()) == [file]
    _state(4).save(file)
    _assert_same(Checkpoint.load(file, SETTINGS), _state(4))
