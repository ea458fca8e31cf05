"""A file of a sealed log, and the seal that tells what was in it.

A line is a JSON object with the SHA-256 of the line before it, so that no line can be edited
without every later one. The *seal*, a small file elsewhere, holds where the log lies, how many
lines it has and the hash of the last: it tells when an older copy was put back, or one lies
elsewhere. A line is written first, the seal after it; a log that goes on beyond its seal is
accepted, since a process may be killed between the two.

What this cannot notice: log and seal put back together, or both removed, or rewritten by someone
who may write to both. It guards against accidents and backups, not against the site's operator. So
no key signs a seal: who may write it may also read the site's keys. POSIX only, for its file locks;
these hold between processes that share the seal's folder.
"""

import hashlib
import json
import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, NamedTuple, Self

from pydantic import TypeAdapter
from pydantic.dataclasses import dataclass

from common.errors import DataError
from common.json_types import JsonObject
from common.storage.whole_files import locked, sync_folder, write_atomically

Line = JsonObject

BEFORE = "before"
_UNKNOWN = "or release nothing more of this data: what was spent is unknown"
_log = logging.getLogger(__name__)


class End(NamedTuple):
    """A place in a log, after a line.

    Attributes
    ----------
    lines : number of the line, from 1; 0 for the log's beginning.
    head : the line's hash; empty at the beginning.
    """

    lines: int = 0
    head: str = ""


@dataclass(frozen=True)
class Seal:
    """What a log was when it was last written.

    Attributes
    ----------
    path : where it lies.
    lines, head : where it ended.
    """

    path: str
    lines: int = 0
    head: str = ""

    @property
    def end(self) -> End:
        """Where the log ended."""
        return End(self.lines, self.head)

    @classmethod
    def read(cls, file: Path, path: Path) -> Self | None:
        """Return the seal of the log at ``path``; None if there is none.

        Raises
        ------
        DataError
            If it cannot be read, or is that of a log elsewhere.
        """
        try:
            seal = TypeAdapter(cls).validate_json(file.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise DataError(f"the seal {file} cannot be read; put it back") from error
        if seal.lines and seal.path != str(path):
            raise DataError(
                f"the ledger of this data is {seal.path}, not {path}; use that one, or, if it was "
                f"moved and none is left there, correct 'path' in {file}"
            )
        return seal

    def write(self, file: Path) -> None:
        """Write the seal, on disk when this returns."""
        write_atomically(file, TypeAdapter(type(self)).dump_json(self))


class LogFile:
    """A file of a log, open to add lines to it.

    Parameters
    ----------
    path : where it is; it is made if it is not there, for its owner alone.

    Attributes
    ----------
    content : its lines.
    """

    def __init__(self, path: Path, stream: IO[bytes]) -> None:
        self.path, self._stream = path, stream
        stream.seek(0)
        self._read = stream.read()
        self.content = self._read[: self._read.rfind(b"\n") + 1]

    @classmethod
    def open(cls, path: Path, stack: ExitStack) -> Self:
        """Open a file until the stack is left."""
        with usable(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
            stream = open(path, "a+b", buffering=0, opener=_private)  # noqa: SIM115
            stack.enter_context(stream)
            if not stream.tell():
                sync_folder(path.parent)  # a new file's name is on disk too
            return cls(path, stream)

    def drop_unfinished(self) -> None:
        """Drop a last line without its end: it was never finished, so nothing came of it."""
        if self._read != self.content:
            _log.warning("%s: dropped a last line that was never finished", self.path)
            with usable(self.path.parent):
                self._stream.truncate(len(self.content))

    def add(self, line: bytes, place: Path, before: Seal, after: Seal) -> None:
        """Add a line, then its seal; both are on disk when this returns.

        Parameters
        ----------
        place : the seal's file; where it is missing, ``before`` is written first.

        Raises
        ------
        DataError
            If there is no room for them; the log is then as it was.
        """
        try:
            if not place.exists():
                before.write(place)
            with usable(self.path.parent):
                _write(self._stream.fileno(), line)
            after.write(place)
        except DataError:
            with suppress(OSError, DataError):  # what cannot be taken back stays, and counts
                if type(after).read(place, Path(after.path)) != after:
                    os.ftruncate(self._stream.fileno(), len(self.content))
            raise
        self.content += line


@contextmanager
def alone(seal: Path) -> Iterator[ExitStack]:
    """Keep other processes from a log; yield a stack, which closes its files first."""
    with ExitStack() as stack:
        with usable(seal.parent):
            stack.enter_context(locked(seal.with_suffix(".lock")))
        yield stack


def finished(line: Line, before: str) -> bytes:
    """Return a line as it is written, after a line with the hash ``before``."""
    return json.dumps({**line, BEFORE: before}, allow_nan=False).encode() + b"\n"


def verified(path: Path, content: bytes, start: End) -> tuple[list[Line], End]:
    """Return the lines that follow on ``start``, without their hashes, and where the last ends.

    Raises
    ------
    DataError
        If one does not follow on the one before.
    """
    lines, end = [], start
    for line in content.splitlines(keepends=True):
        fields = parse(line)
        if fields.pop(BEFORE, None) != end.head:
            raise DataError(
                f"{path} was changed at or before line {end.lines + 1}; put the unchanged file "
                f"back, {_UNKNOWN}"
            )
        lines.append(fields)
        end = End(end.lines + 1, hash_of(line))
    return lines, end


def check_end(path: Path, content: bytes, seal: Seal, place: Path) -> None:
    """Check that a log's only file has the lines that its seal knows.

    Raises
    ------
    DataError
        If it has fewer or others, or there is no seal.
    """
    lines = content.splitlines(keepends=True)
    if len(lines) < seal.lines or (seal.lines and hash_of(lines[seal.lines - 1]) != seal.head):
        raise other_lines(path, seal, place)


def other_lines(path: Path, seal: Seal, place: Path) -> DataError:
    """Return the error for a log that does not have the lines that its seal knows."""
    return DataError(
        f"{path} was changed or an older copy was put back: its seal {place} knows {seal.lines} "
        f"other lines; put the newest file back, {_UNKNOWN}"
    )


def no_seal(path: Path, place: Path) -> DataError:
    """Return the error for a log with lines and without a seal."""
    return DataError(
        f"{path} has no seal {place}: it is a copy, or the seal was lost; use it where it was "
        "begun, or put the seal back"
    )


@contextmanager
def usable(folder: Path) -> Iterator[None]:
    """Turn an error of the disk into one line."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"cannot write to {folder} ({reason}); nothing was reserved") from error


def parse(line: bytes) -> Line:
    """Return a line's fields; none if it has none."""
    try:
        fields = json.loads(line)
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}


def hash_of(line: bytes) -> str:
    """Return the hash of a line."""
    return hashlib.sha256(line).hexdigest()


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _write(file: int, content: bytes) -> None:
    while content:
        content = content[os.write(file, content) :]
    os.fsync(file)
