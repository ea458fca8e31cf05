"""A log in one file, which is read and verified whole: ``client/log_file.py`` says how."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

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
    verified,
)


class SealedLog:
    """A log and its seal; while it is ``opened`` no other process reads or writes them.

    Parameters
    ----------
    path : the log's file.
    seal : the seal's file, in a folder that is not copied or restored with the log's.
    """

    def __init__(self, path: Path, seal: Path) -> None:
        self.path, self.seal = path.resolve(), seal
        self._file: LogFile | None = None
        self._end = End()

    @classmethod
    def at(cls, path: Path, seals: Path, kind: str) -> Self:
        """Return a log; its seal is named after the log's kind and place."""
        return cls(path, seal_of(path, seals, kind))

    @contextmanager
    def opened(self) -> Iterator[list[Line]]:
        """Lock the log, check it and yield its lines, none if it is new.

        A last line without its end was never finished, so nothing came of it: it is dropped.

        Raises
        ------
        DataError
            If it cannot be read, was edited or rolled back, or lies elsewhere than its seal says.
        """
        with alone(self.seal) as stack:
            self._file = LogFile.open(self.path, stack)
            self._file.drop_unfinished()
            yield self._check(self._file.content)

    def append(self, line: Line) -> int:
        """Add a line and its seal, on disk when this returns; return the line's number, from 1.

        Raises
        ------
        DataError
            If there is no room for them; the log is then as it was.
        """
        assert self._file is not None
        new = finished(line, self._end.head)
        end = End(self._end.lines + 1, hash_of(new))
        path = str(self.path)
        self._file.add(new, self.seal, Seal(path, *self._end), Seal(path, *end))
        self._end = end
        return end.lines

    def remove(self) -> None:
        """Remove the log and its seal, which are no longer needed."""
        self.path.unlink(missing_ok=True)
        for file in (self.seal, self.seal.with_suffix(".lock")):
            file.unlink(missing_ok=True)

    def _check(self, content: bytes) -> list[Line]:
        seal = Seal.read(self.seal, self.path)
        if seal is not None:
            check_end(self.path, content, seal, self.seal)
        elif content:
            raise no_seal(self.path, self.seal)
        lines, self._end = verified(self.path, content, End())
        return lines


def seal_of(path: Path, seals: Path, kind: str) -> Path:
    """Return the file of a log's seal, named after the log's kind and place."""
    name = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:32]
    return seals.expanduser() / f"{kind}-{name}.json"
