"""A log on disk to which lines are only added; it detects changes to them.

A line is a JSON object with the SHA-256 of the line before it, so that no line can be edited
without every later one. A *seal*, a small file elsewhere, holds where the log lies, how many lines
it has and the hash of the last: it tells when an older copy was put back, or one lies elsewhere.
A line is written first, the seal after it; a log that goes on beyond its seal is accepted, since
a process may be killed between the two.

What this cannot notice: log and seal put back together, or both removed, or rewritten by someone
who may write to both. It guards against accidents and backups, not against the site's operator.
POSIX only, for its file locks; these hold between processes that share the seal's folder.
"""

import hashlib
import json
import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Self

from common.errors import DataError
from common.files import locked, sync_folder, write_atomically
from common.json_types import JsonObject

Line = JsonObject

_BEFORE = "before"
_log = logging.getLogger(__name__)


class SealedLog:
    """A log and its seal; while it is ``opened`` no other process reads or writes them.

    Parameters
    ----------
    path : the log's file.
    seal : the seal's file, in a folder that is not copied or restored with the log's.
    """

    def __init__(self, path: Path, seal: Path) -> None:
        self.path, self.seal = path.resolve(), seal
        self._file = -1
        self._content = b""

    @classmethod
    def at(cls, path: Path, seals: Path, kind: str) -> Self:
        """Return a log; its seal is named after the log's kind and place."""
        name = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:32]
        return cls(path, seals.expanduser() / f"{kind}-{name}.json")

    @contextmanager
    def opened(self) -> Iterator[list[Line]]:
        """Lock the log, check it and yield its lines, none if it is new.

        A last line without its end was never finished, so nothing came of it: it is dropped.

        Raises
        ------
        DataError
            If it cannot be read, was edited or rolled back, or lies elsewhere than its seal says.
        """
        with ExitStack() as stack:
            with _usable(self.seal.parent):
                stack.enter_context(locked(self.seal.with_suffix(".lock")))
            with _usable(self.path.parent):
                file = stack.enter_context(_open(self.path))
                self._file, self._content = file.fileno(), self._read(file)
            yield self._check()

    def append(self, line: Line) -> int:
        """Add a line and its seal, on disk when this returns; return the line's number, from 1.

        Raises
        ------
        DataError
            If there is no room for them; the log is then as it was.
        """
        lines = self._content.splitlines(keepends=True)
        fields = {**line, _BEFORE: _hash(lines[-1]) if lines else ""}
        new = json.dumps(fields, allow_nan=False).encode() + b"\n"
        try:
            if not self.seal.exists():
                self._write_seal(self._content)
            with _usable(self.path.parent):
                _write(self._file, new)
            self._write_seal(self._content + new)
        except DataError:
            with suppress(OSError):  # what cannot be taken back stays, and counts
                os.ftruncate(self._file, len(self._content))
            raise
        self._content += new
        return len(lines) + 1

    def remove(self) -> None:
        """Remove the log and its seal, which are no longer needed."""
        self.path.unlink(missing_ok=True)
        for file in (self.seal, self.seal.with_suffix(".lock")):
            file.unlink(missing_ok=True)

    def _read(self, file: IO[bytes]) -> bytes:
        file.seek(0)
        content = file.read()
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            _log.warning("%s: dropped a last line that was never finished", self.path)
            file.truncate(len(whole))
        return whole

    def _check(self) -> list[Line]:
        lines = self._content.splitlines(keepends=True)
        self._check_seal(lines)
        before = ""
        checked: list[Line] = []
        for number, line in enumerate(lines, 1):
            fields = _parse(line)
            if fields.pop(_BEFORE, None) != before:
                raise DataError(
                    f"{self.path} was changed at or before line {number}; put the unchanged file "
                    "back, or release nothing more of this data: what was spent is unknown"
                )
            before = _hash(line)
            checked.append(fields)
        return checked

    def _check_seal(self, lines: list[bytes]) -> None:
        try:
            seal = json.loads(self.seal.read_bytes())
            path, count, head = seal["path"], int(seal["lines"]), seal["head"]
        except FileNotFoundError:
            if lines:
                raise DataError(
                    f"{self.path} has no seal {self.seal}: it is a copy, or the seal was lost; use "
                    "it where it was begun, or put the seal back"
                ) from None
            return
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"the seal {self.seal} cannot be read; put it back") from error
        if count and path != str(self.path):
            raise DataError(
                f"the ledger of this data is {path}, not {self.path}; use that one, or, if it was "
                f"moved and none is left there, correct 'path' in {self.seal}"
            )
        if len(lines) < count or (count and _hash(lines[count - 1]) != head):
            raise DataError(
                f"{self.path} was changed or an older copy was put back: its seal {self.seal} "
                f"knows {count} other lines; put the newest file back, or release nothing more of "
                "this data: what was spent is unknown"
            )

    def _write_seal(self, content: bytes) -> None:
        lines = content.splitlines(keepends=True)
        head = _hash(lines[-1]) if lines else ""
        seal = {"path": str(self.path), "lines": len(lines), "head": head}
        write_atomically(self.seal, json.dumps(seal).encode())


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _write(file: int, content: bytes) -> None:
    while content:
        content = content[os.write(file, content) :]
    os.fsync(file)


def _open(path: Path) -> IO[bytes]:
    """Open for reading and adding, for its owner alone; a new file's name is on disk too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = open(path, "a+b", buffering=0, opener=_private)  # noqa: SIM115
    if not file.tell():
        sync_folder(path.parent)
    return file


@contextmanager
def _usable(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"cannot write to {folder} ({reason}); nothing was reserved") from error


def _parse(line: bytes) -> Line:
    try:
        fields = json.loads(line)
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}


def _hash(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()
