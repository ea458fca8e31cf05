"""One owner at a time, for as long as it lives; files and folders that are whole or not there."""

import errno
import os
import re
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from common.errors import BusyError, DataError
from common.storage.whole_files import (
    abandoned,
    append,
    make_folder,
    owned,
    whole_folder,
    write_atomically,
)

HOLDS = """
import sys
from pathlib import Path
from common.storage.whole_files import owned

with owned(Path(sys.argv[1])):
    print("owned", flush=True)
    sys.stdin.read()
"""


def holder(folder: Path) -> "subprocess.Popen[str]":
    """Start a process that owns a folder until its input ends."""
    command = [sys.executable, "-c", HOLDS, str(folder)]
    process = subprocess.Popen(command, stdin=-1, stdout=-1, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "owned\n"
    return process


def test_a_second_owner_is_told_who_and_since_when_and_a_killed_one_holds_nothing(tmp_path):
    folder = tmp_path / "run"
    process = holder(folder)
    try:
        # However the folder is called.
        link = tmp_path / "link"
        link.symlink_to(tmp_path)
        for name in (folder, link / "run", folder / ".." / "run"):
            with pytest.raises(BusyError) as refusal, owned(name):
                pass
            said = rf"process {process.pid} since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d; wait for its"
            assert re.search(f"{re.escape(str(name))} is in use by {said}", str(refusal.value))
            assert "\n" not in str(refusal.value)
        assert not abandoned(folder)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert abandoned(folder)
        with owned(folder):
            assert not abandoned(folder)
    finally:
        process.kill()
        process.communicate()
    # Nothing is left of a lock that ended well, and the folder was not made.
    assert not abandoned(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["link"]


def test_owners_that_wait_follow_each_other(tmp_path):
    inside, most, done = 0, 0, []

    def work(number: int) -> None:
        nonlocal inside, most
        for _ in range(20):
            with owned(tmp_path / "x", wait=True):
                inside += 1
                most = max(most, inside)
                done.append(number)
                inside -= 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(done), most) == (80, 1)
    assert not list(tmp_path.iterdir())


def test_a_folder_is_whole_or_not_there(tmp_path):
    out = tmp_path / "out"
    with suppress(KeyboardInterrupt), whole_folder(out) as folder:
        (folder / "half").touch()
        raise KeyboardInterrupt
    assert not out.exists()
    with whole_folder(out) as folder:
        (folder / "all").touch()
        assert not out.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert [path.name for path in out.iterdir()] == ["all"]
    with pytest.raises(DataError, match="is not an empty folder"), whole_folder(out):
        pass


def test_what_a_killed_process_left_of_the_first_file_does_not_count(tmp_path, monkeypatch):
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        patch.setattr(os, "unlink", lambda path: None)
        with pytest.raises(KeyboardInterrupt):
            write_atomically(tmp_path / "first.json", b"{}")
    assert len(list(tmp_path.iterdir())) == 1
    (mine := tmp_path / "mine.part").touch()
    with pytest.raises(DataError, match="is not an empty folder"):
        make_folder(tmp_path, "first.json")
    assert list(tmp_path.iterdir()) == [mine]
    mine.unlink()
    make_folder(tmp_path, "first.json")


def test_a_line_that_does_not_fit_leaves_those_before(tmp_path):
    """Where a log goes on after a part of a line, both lines are lost."""
    resource = pytest.importorskip("resource")
    file = tmp_path / "log.jsonl"
    append(file, b"whole\n")
    before, ignored = resource.getrlimit(resource.RLIMIT_FSIZE), signal.getsignal(signal.SIGXFSZ)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
    try:
        with pytest.raises(DataError, match=f"cannot write to {file}") as refusal:
            append(file, b"too long a line\n")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert os.strerror(errno.EFBIG) in str(refusal.value)
    append(file, b"next\n")
    assert file.read_text() == "whole\nnext\n"
