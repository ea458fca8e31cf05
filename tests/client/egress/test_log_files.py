"""A log of many files loses nothing, shows what is done to it, and adds up as if read whole."""

import errno
import json
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.egress import log_files
from client.egress.log_files import EgressLog
from client.egress.quota import Sums
from client.log_file import Line
from client.sealed_log import SealedLog
from common.errors import DataError
from tests.examples import examples
from tests.faults import Killed

SMALL = 400
"""Bytes after which a file is full: two lines or three."""

BEGUN = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(autouse=True)
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_files, "SIZE", SMALL)


def line_of(number: int, question: str = "hinge", refused: str = "", minutes: int = 0) -> Line:
    time = (BEGUN + timedelta(minutes=minutes)).isoformat(timespec="seconds")
    sent = {"time": time, "question": question, "bytes": number, "refused": refused}
    return {**sent, "records": [], "run": "1", "round": "1", "spent": None}


@dataclass
class Place:
    """A log, its seal, and where its operator moves old files to.

    Attributes
    ----------
    written : the lines that were added, as far as anybody was told.
    seals : earlier seals.
    """

    root: Path
    written: list[Line] = field(default_factory=list)
    seals: list[bytes] = field(default_factory=list)

    @property
    def log(self) -> EgressLog:
        """The log as another process finds it."""
        return EgressLog(self.root / "state" / "log.jsonl", self.root / "seals" / "log.json")

    def add(self, line: Line) -> None:
        with self.log.opened():
            pass
        log = self.log
        with log.opened():
            log.append(line)
        self.written.append(line)
        self.seals.append(log.seal.read_bytes())

    def files(self) -> list[Path]:
        """Return the files that have lines, oldest first."""
        there = (path for path in (self.root / "state").glob("log*.jsonl") if _whole(path))
        return sorted(there, key=lambda path: (len(path.name), path.name))

    def content(self) -> dict[Path, bytes]:
        return {path: _whole(path) for path in self.files()}

    def lines(self) -> list[Line]:
        """All lines, read without the program."""
        lines = [json.loads(line) for path in self.files() for line in _whole(path).splitlines()]
        return [{k: v for k, v in line.items() if k not in ("before", "carried")} for line in lines]


def _whole(path: Path) -> bytes:
    """Return the lines of a file that were finished."""
    content = path.read_bytes()
    return content[: content.rfind(b"\n") + 1]


def sums_by_hand(lines: Sequence[Line], since: str) -> tuple[int, ...]:
    sent = [line["bytes"] for line in lines if not line["refused"] and line["time"] >= since]
    return (
        sum(line["bytes"] for line in lines),
        sum(line["question"] not in ("join", "close") for line in lines),
        sum(line["question"] == "hinge" for line in lines),
        len(sent),
        sum(sent),
    )


def check(place: Place) -> None:
    """Check that nothing is lost, and that sums and lines are those of a whole read."""
    with place.log.opened() as sums:
        pass
    lines = place.lines()
    assert lines == place.written
    for minutes in (0, 50, 600):
        since = (BEGUN + timedelta(minutes=minutes)).isoformat(timespec="seconds")
        found = (sums.bytes, sums.questions, sums.rounds, *sums.since(since))
        assert found == sums_by_hand(lines, since)
    parts = [part.lines for part in place.log.files()]
    told = [line for part in parts for line in part or []]
    assert [{k: v for k, v in line.items() if k != "carried"} for line in told] == lines


LINES = st.builds(
    line_of,
    st.integers(0, 10**9),
    st.sampled_from(["hinge", "moments", "join", "close", "magic"]),
    st.sampled_from(["", "reason"]),
    st.integers(0, 70).map(lambda tens: 10 * tens),
)


def full(*_: object) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def killed(*_: object) -> int:
    raise Killed


@contextmanager
def fault(after: int, strike: Callable[..., int], share: float = 0.0) -> Iterator[None]:
    """Let one change of the disk go wrong, after so many; of a line a share is written."""
    left = [after]

    def around(real: Callable[..., Any], part: Callable[..., Any]) -> Callable[..., Any]:
        def change(*arguments: Any) -> Any:
            left[0] -= 1
            if left[0] == -1:
                part(*arguments)
                strike()
            return real(*arguments)

        return change

    write = os.write

    def nothing(*_: object) -> None:
        """Do nothing."""

    def half(file: int, content: bytes) -> None:
        write(file, content[: int(share * len(content))])

    with pytest.MonkeyPatch.context() as patch:
        for name in ("replace", "open"):
            patch.setattr(os, name, around(getattr(os, name), nothing))
        patch.setattr(os, "fsync", around(nothing, nothing))
        patch.setattr(os, "write", around(write, half))
        yield


@examples(60)
@given(
    steps=st.lists(
        st.one_of(
            LINES,
            st.tuples(LINES, st.integers(0, 14), st.sampled_from([full, killed]), st.floats(0, 1)),
            st.floats(0, 1),
        ),
        max_size=25,
    ),
    spot=st.floats(0, 0.999),
    kept=st.floats(0, 0.999),
)
def test_whatever_happens_nothing_is_lost_and_every_change_shows(
    tmp_path_factory, steps, spot, kept
):
    place = Place(tmp_path_factory.mktemp("place"))
    copies: list[dict[Path, bytes]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        for step in steps:
            if isinstance(step, dict):
                place.add(step)
            elif isinstance(step, tuple):
                add_badly(place, *step)
            elif place.seals:  # an older seal is put back
                place.log.seal.write_bytes(place.seals[int(step * (len(place.seals) - 1))])
            check(place)
            copies.append(place.content())
        place.add(line_of(1))
        tamper(place, spot)
        put_back(place, [copy for copy in copies if copy != place.content()], kept)
        check(place)


def add_badly(place: Place, line: Line, after: int, strike: Callable[..., int], share: float):
    """Add a line while something goes wrong: it is there whole, or nothing of it."""
    before = place.content()
    sealed = place.log.seal.read_bytes() if place.log.seal.exists() else b""
    try:
        with fault(after, strike, share):
            place.add(line)
        return
    except DataError:
        if place.log.seal.exists() and sealed in (b"", place.log.seal.read_bytes()):
            assert place.content() == before
    except Killed:
        pass
    with suppress(FileNotFoundError), place.log.opened():
        if place.lines() == [*place.written, line]:
            place.written.append(line)


def tamper(place: Place, spot: float) -> None:
    """Flip a byte, and cut a file there; neither stays unnoticed."""
    whole = b"".join(place.content().values())
    left, last = int(spot * len(whole)), place.files()[-1]
    for path, content in place.content().items():
        if left >= len(content):
            left -= len(content)
            continue
        flipped = bytes([content[left] ^ 1])
        path.write_bytes(content[:left] + flipped + content[left + 1 :])
        refused(place, at_once=path == last)
        path.write_bytes(content[:left])
        refused(place, at_once=path == last)
        path.write_bytes(content)
        return


def put_back(place: Place, copies: list[dict[Path, bytes]], kept: float) -> None:
    """Put back an older copy of all files, as a backup does."""
    if not copies:
        return
    now = place.content()
    for path in now:
        path.unlink()
    for path, content in copies[int(kept * len(copies))].items():
        path.write_bytes(content)
    refused(place)
    for path, content in now.items():
        path.write_bytes(content)


def refused(place: Place, at_once: bool = True) -> None:
    """Check that a damaged log is not read, and by a message not added to."""
    seal = place.log.seal.read_bytes()
    with pytest.raises(DataError):
        list(place.log.files())
    if at_once:
        with pytest.raises(DataError):
            place.add(line_of(2))
    assert place.log.seal.read_bytes() == seal


def filled(root: Path, number: int = 15) -> Place:
    place = Place(root)
    for each in range(number):
        place.add(line_of(each))
    assert len(place.files()) > 4
    return place


def test_old_files_may_be_moved_away_and_are_named(tmp_path):
    place = filled(tmp_path)
    with place.log.opened() as before:
        pass
    first, second, third, *_ = place.files()
    moved = tmp_path / "archive"
    moved.mkdir()
    for path in (first, third):
        shutil.move(path, moved)
    place.add(line_of(5))
    with place.log.opened() as sums:
        assert sums == before.after([line_of(5)])
    parts = list(place.log.files())
    assert [part.path for part in parts if part.lines is None] == [first, third]
    assert parts[-1].end.lines == 16
    # What is there is verified, also where the file after it is not.
    content = second.read_bytes()
    for changed in (content[:-1], content.splitlines(keepends=True)[0], moved / third.name):
        second.write_bytes(changed if isinstance(changed, bytes) else changed.read_bytes())
        refused(place, at_once=False)
    second.write_bytes(content)
    for path in (first, third):
        shutil.move(moved / path.name, path)
    assert all(part.lines for part in place.log.files())


def test_an_older_seal_beside_a_gap_is_refused(tmp_path):
    """Else the log would begin to fork where the seal ends."""
    place = filled(tmp_path)
    place.log.seal.write_bytes(place.seals[0])
    second = place.files()[1]
    second.rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=f"{second} is missing, and the seal .* is older"):
        place.add(line_of(1))
    place.log.seal.unlink()
    place.files()[0].unlink()
    with pytest.raises(DataError, match="has no seal"):
        place.add(line_of(1))


def test_sums_in_a_seal_that_are_not_the_logs_are_corrected(tmp_path, caplog):
    place = filled(tmp_path)
    seal = json.loads(place.log.seal.read_text())
    place.log.seal.write_text(json.dumps({**seal, "sums": {**seal["sums"], "rounds": 0}}))
    place.files()[0].unlink()
    list(place.log.files())
    assert json.loads(place.log.seal.read_text()) == seal
    assert "had other sums than its log" in caplog.text


def former(place: Place, number: int, sealed: int) -> bytes:
    """Write a log and a seal as version 0.1 did."""
    lines, before, heads = [], "", [""]
    for each in range(number):
        fields = {**line_of(each), "before": before}
        lines.append(json.dumps(fields).encode() + b"\n")
        before = sha256(lines[-1]).hexdigest()
        heads.append(before)
    log = place.log
    for folder in (log.path.parent, log.seal.parent):
        folder.mkdir()
    log.path.write_bytes(b"".join(lines))
    seal = {"path": str(log.path), "lines": sealed, "head": heads[sealed]}
    log.seal.write_text(json.dumps(seal))
    place.written = [line_of(each) for each in range(number)]
    return log.path.read_bytes()


@pytest.mark.parametrize("beyond", [0, 1])
def test_a_log_of_the_former_format_is_carried_over(tmp_path, beyond):
    place = Place(tmp_path)
    content = former(place, 20, 20 - beyond)
    with SealedLog(place.log.path, place.log.seal).opened() as lines:
        assert lines == place.written  # it is what the former program reads
    for changed in (content.replace(b"hinge", b"hings", 1), b"".join(content.splitlines(True)[:9])):
        place.log.path.write_bytes(changed)
        refused(place)
    place.log.path.write_bytes(content)
    check(place)
    for each in range(5):
        place.add(line_of(each))
    check(place)
    assert place.files()[0].read_bytes() == content
    assert len(place.files()) > 2


def _add_twenty(root: Path) -> None:
    place = Place(root)
    for each in range(20):
        place.add(line_of(each))


def test_two_processes_at_once_lose_nothing(tmp_path):
    fork = multiprocessing.get_context("fork")
    jobs = [fork.Process(target=_add_twenty, args=[tmp_path]) for _ in range(2)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
        assert job.exitcode == 0
    place = Place(tmp_path)
    place.written = place.lines()
    check(place)
    assert sorted(line["bytes"] for line in place.written) == sorted([*range(20), *range(20)])


def test_sums_stay_of_one_size_and_know_two_days():
    """Ten minutes after ten minutes, for a month."""
    lines = [line_of(1, minutes=10 * step) for step in range(6 * 24 * 30)]
    sums = Sums().after(lines)
    for hours in (1, 24, 47):
        since = lines[-6 * hours]["time"]
        assert sums.since(since) == (6 * hours, 6 * hours)
    assert len(json.dumps(sums.sent)) < 12_000
