"""The files of a hospital's log of all that left it, of bounded size; the last of them is read.

Each file but the first begins with a line that carries what was before: where each of the earlier
files ended, and what all their lines add up to. So whoever adds a line reads the last file alone,
however long the log is, and the earlier ones may be moved away. They never change; where they are,
:meth:`EgressLog.files` verifies them.
"""

import hashlib
import logging
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, field, replace
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from pydantic import TypeAdapter
from pydantic.dataclasses import dataclass

from client.egress.quota import Sums
from client.log_file import (
    End,
    Line,
    LogFile,
    Seal,
    alone,
    check_end,
    finished,
    hash_of,
    no_seal,
    other_lines,
    parse,
    verified,
)
from client.operator.site_rules import Operator
from client.sealed_log import seal_of
from common.errors import DataError

FILE = "egress-log.jsonl"
"""The first file; those after it have numbers in their names."""

SIZE = 1 << 20
"""Bytes of messages after which another file is begun."""

_CARRIED = "carried"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Carried:
    """What a file's first line carries.

    Attributes
    ----------
    ends : where each of the earlier files ended.
    sums : what their lines add up to.
    """

    ends: list[End] = field(default_factory=list)
    sums: Sums = field(default_factory=Sums)


@dataclass(frozen=True)
class _Seal(Seal):
    """The seal of a log of several files.

    Attributes
    ----------
    file : number of the last file, from 1.
    size : its bytes, all of them lines.
    digest : their SHA-256; empty where the seal is from before there were several files.
    sums : what all lines add up to.
    """

    file: int = 1
    size: int = 0
    digest: str = ""
    sums: Sums = field(default_factory=Sums)


class Part(NamedTuple):
    """One file of a log.

    Attributes
    ----------
    path : where it is.
    start, end : where in the log it begins and ends.
    lines : its lines, verified; None if it is not there.
    """

    path: Path
    start: End
    end: End
    lines: list[Line] | None


class EgressLog:
    """A log and its seal; while it is ``opened`` no other process reads or writes them.

    Parameters
    ----------
    path : its first file.
    seal : the seal's file, in a folder that is not copied or restored with the log's.
    """

    def __init__(self, path: Path, seal: Path) -> None:
        self.path, self.seal = path.resolve(), seal
        self._stack = ExitStack()
        self._last: LogFile
        self._state: _Seal
        self._digest = hashlib.sha256()  # of the last file

    @classmethod
    def of(cls, operator: Operator) -> "EgressLog":
        """Return a hospital's log."""
        path = operator.state / FILE
        return cls(path, seal_of(path, operator.seals, "egress"))

    @contextmanager
    def opened(self) -> Iterator[Sums]:
        """Lock the log, check its last file and yield what all lines add up to.

        Raises
        ------
        DataError
            If the file cannot be read, was edited or rolled back, or lies elsewhere than its seal
            says.
        """
        with alone(self.seal) as self._stack:
            newest = self._newest()
            seal = _Seal.read(self.seal, self.path)
            if seal is None and newest:
                raise no_seal(self.path, self.seal)
            self._open(seal or _Seal(str(self.path)))
            while self._state.file < newest and self._go_on():
                pass
            yield self._state.sums

    def append(self, line: Line) -> None:
        """Add a line and its seal, on disk when this returns.

        Raises
        ------
        DataError
            If there is no room for them; the log is then as it was.
        """
        state, last = self._state, self._last
        number, carried = state.file, {}
        # The first line does not count: it carries more, the longer the log is.
        if len(last.content) - last.content.find(b"\n") > SIZE:
            number += 1
            carried = {_CARRIED: asdict(_Carried([*self._carried().ends, state.end], state.sums))}
            last = LogFile.open(self._path(number), self._stack)
            last.drop_unfinished()
        new = finished({**line, **carried}, state.head)
        digest = hashlib.sha256() if carried else self._digest.copy()
        digest.update(new)
        end = End(state.lines + 1, hash_of(new))
        size, sums = len(last.content) + len(new), state.sums.after([line])
        after = _Seal(state.path, *end, number, size, digest.hexdigest(), sums)
        last.add(new, self.seal, state, after)
        self._last, self._state, self._digest = last, after, digest

    def files(self) -> Iterator[Part]:
        """Verify all files that are there, and yield them, oldest first; others may add meanwhile.

        Raises
        ------
        DataError
            At the first that is not what was written.
        """
        with self.opened():
            carried = self._carried()
            last = self._whole_last(carried)
        for number, (start, end) in enumerate(pairwise([End(), *carried.ends]), 1):
            path = self._path(number)
            yield Part(path, start, end, _lines_of(path, start, end))
        yield last

    def _path(self, number: int) -> Path:
        if number == 1:
            return self.path
        return self.path.with_stem(f"{self.path.stem}-{number:06}")

    def _newest(self) -> int:
        """Return the number of the newest file that is not empty; 0 if there is none."""
        stem, suffix = self.path.stem, self.path.suffix
        later = (path.stem.removeprefix(f"{stem}-") for path in self.path.parent.glob(f"*{suffix}"))
        numbers = [int(each) for each in later if re.fullmatch(r"\d{6,}", each)]
        numbers += [1] if self.path.exists() else []
        newest_first = sorted(numbers, reverse=True)
        return next((each for each in newest_first if self._path(each).stat().st_size), 0)

    def _open(self, seal: _Seal) -> None:
        """Open the file that was the last when the log was sealed, and check it."""
        last = LogFile.open(self._path(seal.file), self._stack)
        if seal.digest:
            self._take(last, seal)
            return
        check_end(last.path, last.content, seal, self.seal)
        self._take(last, _Seal(str(self.path)))
        if self._state.lines:
            self._state.write(self.seal)  # else each opening would verify all of it again

    def _go_on(self) -> bool:
        """Go on to the next file; return whether it has a line.

        Who began it was killed before it was sealed, or an older seal was put back.
        """
        number = self._state.file + 1
        if not self._path(number).exists():
            raise DataError(
                f"{self._path(number)} is missing, and the seal {self.seal} is older; put either "
                "back"
            )
        last = LogFile.open(self._path(number), self._stack)
        if last.content:
            self._take(last, replace(self._state, file=number, size=0, digest=""))
        return bool(last.content)

    def _take(self, last: LogFile, seal: _Seal) -> None:
        """Take a file, and what was written into it since the log was sealed."""
        sealed, rest = last.content[: seal.size], last.content[seal.size :]
        self._digest = hashlib.sha256(sealed)
        if len(sealed) < seal.size or seal.digest not in ("", self._digest.hexdigest()):
            raise other_lines(last.path, seal, self.seal)
        last.drop_unfinished()
        self._digest.update(rest)
        lines, end = verified(last.path, rest, seal.end)
        size, digest, sums = len(last.content), self._digest.hexdigest(), seal.sums.after(lines)
        self._last = last
        self._state = _Seal(str(self.path), *end, seal.file, size, digest, sums) if rest else seal

    def _carried(self) -> _Carried:
        """Return what was before the last file."""
        if self._state.file == 1:
            return _Carried()
        try:
            first = parse(self._last.content.split(b"\n", 1)[0])
            return TypeAdapter(_Carried).validate_python(first[_CARRIED])
        except (KeyError, ValueError) as error:
            raise other_lines(self._last.path, self._state, self.seal) from error

    def _whole_last(self, carried: _Carried) -> Part:
        """Verify the last file line by line; correct the seal if it has other sums."""
        last, start = self._last, [End(), *carried.ends][-1]
        lines, _ = verified(last.path, last.content, start)
        sums = carried.sums.after(lines)
        if sums != self._state.sums:
            _log.warning("%s had other sums than its log; they are corrected", self.seal)
            replace(self._state, sums=sums).write(self.seal)
        return Part(last.path, start, self._state.end, lines)


def _lines_of(path: Path, start: End, end: End) -> list[Line] | None:
    """Return the lines of a file that is never changed; None if it is not there."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DataError(
            f"cannot read {path} ({error.strerror}); let this account read it"
        ) from error
    lines, last = verified(path, content, start)
    if last != end:
        raise DataError(f"{path} was changed after line {last.lines}; put the unchanged file back")
    return lines
