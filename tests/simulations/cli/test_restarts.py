"""Commands killed between any two changes on disk, on a disk that fills, and started twice.

Started again as it was, each ends as if nothing had happened, bit for bit.
"""

import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from common.config.run import RunConfig
from common.data.dataset import SYNTHETIC_MARKER
from server.run.folder import METRICS_FILE, MODEL_FILE
from simulations.data.synthetic import write_synthetic
from simulations.runtimes.experiment import rounds
from simulations.study.comparison import STATE_FILE
from tests.commands import IID, is_one_error
from tests.disk import room_for, watched
from tests.faults import Killed
from tests.simulations.conftest import STUDY
from tests.sites import QUICK, with_changes, write_features

Command = Sequence[object]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Few images, for many runs, and a study file beside them."""
    folder = tmp_path_factory.mktemp("few") / "data"
    write_synthetic(folder, 40)
    folder.with_name("study.toml").write_text(STUDY)
    return folder


@pytest.fixture(scope="module")
def arguments(data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    """Write the command of a short run, but for where it writes."""
    changes = {"cache": tmp_path_factory.mktemp("cache"), "c": (1e-4,), "head": "lda"}
    config = with_changes(QUICK, changes)
    write_features(data, config)
    default = RunConfig().flat()
    settings = [f"{k}={v}" for k, v in config.flat().items() if v != default.get(k)]
    return ["simulate", data, *IID, *settings, "--out"]


def contents(folder: Path) -> dict[str, bytes]:
    """Return what lies in a folder; of a log, whose lines say how long things took, its name."""
    paths = {str(path.relative_to(folder)): path for path in folder.rglob("*")}
    same = {name: path for name, path in paths.items() if path.suffix != ".jsonl"}
    files = {name: path.read_bytes() for name, path in same.items() if path.is_file()}
    return dict.fromkeys(paths, b"") | files


def test_killed_between_any_two_changes_a_command_goes_on(fedderm, arguments, tmp_path):
    """What lay there at each change is what a killed process leaves."""
    out, left, known = tmp_path / "work" / "out", [], []

    def remember(event: str, path: Path) -> None:
        lies = [(str(p), p.lstat().st_size) for p in sorted(out.parent.rglob("*"))]
        if event != "os.symlink" and lies not in known:
            known.append(lies)
            left.append(tmp_path / f"left{len(left)}")
            shutil.copytree(out.parent, left[-1], symlinks=True)

    out.parent.mkdir()
    with watched(out.parent, remember):
        first = fedderm(*arguments, out)
    remember("the end, before anything is shown", out)
    assert first[0] == 0, first
    expected = contents(out)
    assert len(left) > 30
    for folder in left:
        shutil.rmtree(out.parent)
        folder.rename(out.parent)
        assert fedderm(*arguments, out)[:2] == first[:2], sorted(out.parent.rglob("*"))
        assert contents(out) == expected
        log = rounds(out / "run")
        assert [entry["round"] for entry in log] == list(range(1, len(log) + 1))


def test_on_a_disk_that_fills_a_command_is_one_line_and_goes_on(fedderm, arguments, tmp_path):
    expected = tmp_path / "expected"
    assert fedderm(*arguments, expected)[0] == 0
    out, room = tmp_path / "work" / "out", 0
    while True:
        with room_for(tmp_path / "work", room):
            code, shown, said = fedderm(*arguments, out)
        if code == 0:
            break
        assert is_one_error(code, shown, said), said
        assert "No space left on device" in said
        room += 1
    assert room > 10
    for name in (MODEL_FILE, METRICS_FILE):
        assert (out / "run" / name).read_bytes() == (expected / "run" / name).read_bytes()
    assert contents(out).keys() == contents(expected).keys()


SECOND = {
    "simulate": MODEL_FILE,
    "synth": SYNTHETIC_MARKER,
    "partition": SYNTHETIC_MARKER,
    "compare": STATE_FILE,
}
"""Commands, and a file in whose writing the same command is started a second time."""


@pytest.mark.parametrize("name", SECOND)
def test_started_twice_the_second_says_who_was_first(fedderm, arguments, data, tmp_path, name):
    out = tmp_path / "out"
    commands: dict[str, Command] = {
        "simulate": [*arguments, out],
        "synth": ["data", "synth", out, "--images", 40],
        "partition": ["data", "partition", data, *IID, "--out", out],
        "compare": ["compare", data, "--out", out, "--study", data.with_name("study.toml")],
    }
    seconds = []

    def start_again(event: str, path: Path) -> None:
        if path.name == SECOND[name]:
            seconds.append(fedderm(*commands[name]))
            raise Killed

    with watched(tmp_path, start_again), suppress(Killed):
        fedderm(*commands[name])
    [second] = seconds
    assert is_one_error(*second), second
    assert f"in use by process {os.getpid()} since 2" in second[2]
    if name != "compare":  # it takes long
        assert fedderm(*commands[name])[0] == 0
        assert [path.name for path in tmp_path.iterdir()] == ["out"]
    if name == "synth":
        assert contents(tmp_path / "out") == contents(data)
