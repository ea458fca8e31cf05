"""Files that appear whole or not at all, written by one process at a time.

Locks are those of the operating system (POSIX only): they end with the process that holds them,
however it ends. What a process that was killed leaves of a file ends with ``.part``.
"""

import fcntl
import logging
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import IO

from common.errors import BusyError, DataError

_PART = ".part"
_log = logging.getLogger(__name__)


def write_atomically(path: Path, content: bytes | Iterable[bytes]) -> None:
    """Write a file that is complete whenever it can be seen, making its folder if needed.

    Parameters
    ----------
    content : all of it, or its parts one after the other.

    Raises
    ------
    DataError
        If the file cannot be written, naming its folder.
    """
    with _kept(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        _replace(path, content)


def append(path: Path, content: bytes) -> None:
    """Append to a file; an error leaves it as it was, a killed process may leave a part.

    Raises
    ------
    DataError
        If it cannot be written.
    """
    with _kept(path), path.open("ab", buffering=0) as file:
        before = file.tell()
        try:
            while content:
                content = content[file.write(content) :]
        except OSError:
            with suppress(OSError):
                file.truncate(before)
            raise


def refuse_taken_file(out: Path) -> None:
    """Check, before anything is computed, that a new file can be written.

    Raises
    ------
    DataError
        If it is there already, or its folder is not: no command overwrites data.
    """
    if out.exists() or not out.parent.is_dir():
        raise DataError(f"{out} is there or its folder is not; name a new file")


def make_folder(out: Path, first: str = "") -> None:
    """Make the folder ``out`` unless it exists and is empty.

    Parameters
    ----------
    first : name of the file that is written into it first; what a killed process left of that file
        does not count.

    Raises
    ------
    DataError
        If ``out`` cannot be made, or holds anything: no command overwrites data.
    """
    with _usable(out):
        out.mkdir(parents=True, exist_ok=True)
        if first:
            for part in out.glob(_part_of(first)):
                part.unlink()
        _refuse_taken(out)


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """Yield a folder to fill, which becomes ``out`` when it is complete.

    Nobody sees ``out`` before. What a killed process left is removed. Only the owner of ``out`` may
    enter this.

    Raises
    ------
    DataError
        If ``out`` holds anything or cannot be replaced.
    """
    part = out.resolve().with_name(f".{out.resolve().name}{_PART}")
    with _usable(out):
        if out.exists():
            _refuse_taken(out)
            out.rmdir()
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
    yield part
    with _usable(out):
        part.rename(out)


@contextmanager
def owned(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Own a folder, which need not exist yet: no other process writes it meanwhile.

    Parameters
    ----------
    wait : whether to wait until another owner ends.

    Raises
    ------
    BusyError
        If another process owns it; the message says which and since when.
    DataError
        If there can be no such folder.
    """
    lock = _lock_of(folder)
    with _usable(folder):
        lock.parent.mkdir(parents=True, exist_ok=True)
        file = _lock(folder, lock, wait)
    with file:
        with suppress(OSError):  # it is only for others to read: a full disk may lack room for it
            file.truncate(0)
            file.write(f"process {os.getpid()} since {datetime.now():%Y-%m-%d %H:%M:%S}")
            file.flush()
        try:
            yield
        finally:
            with suppress(OSError):
                lock.unlink()


def abandoned(folder: Path) -> bool:
    """Tell whether the last process that owned a folder was killed."""
    return _held(folder) is False


def in_use(folder: Path) -> bool:
    """Tell whether a process owns a folder now."""
    return _held(folder) is True


def sync_folder(folder: Path) -> None:
    """Put the names of a folder's files on disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Lock a file against other processes that lock it too; the file stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _refuse_taken(out: Path) -> None:
    if any(out.iterdir()):
        raise DataError(f"{out} is not an empty folder; name a new one")


def _lock_of(folder: Path) -> Path:
    """Return the file beside a folder that its owner locks."""
    path = folder.resolve()
    return path.with_name(f".{path.name}.lock") if path.name else path / ".lock"


def _lock(folder: Path, lock: Path, wait: bool) -> IO[str]:
    """Lock a file that its last owner may be about to remove."""
    while True:
        file = lock.open("a+")
        try:
            _seize(folder, file, wait)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file.fileno()), lock.stat()):
                    return file
        except BaseException:
            file.close()
            raise
        file.close()


def _seize(folder: Path, file: IO[str], wait: bool) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read() or "another process"
        if not wait:
            raise BusyError(
                f"{folder} is in use by {holder}; wait for its end, or end it, or name another one"
            ) from None
        _log.warning("%s is in use by %s; waiting for its end", folder, holder)
        fcntl.flock(file, fcntl.LOCK_EX)


def _held(folder: Path) -> bool | None:
    """Tell whether a process holds a folder's lock; None where there is no lock."""
    try:
        with _lock_of(folder).open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return None


def _part_of(name: str) -> str:
    """Return a pattern of the names of parts that a killed process may have left of a file."""
    return f".{name}.*{_PART}"


def _replace(path: Path, content: bytes | Iterable[bytes]) -> None:
    prefix, folder = f".{path.name}.", path.parent
    with tempfile.NamedTemporaryFile(dir=folder, prefix=prefix, suffix=_PART, delete=False) as file:
        try:
            file.writelines([content] if isinstance(content, bytes) else content)
            file.flush()
            os.fsync(file.fileno())
            os.replace(file.name, path)
            sync_folder(path.parent)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


@contextmanager
def _kept(where: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise DataError(
            f"cannot write to {where} ({reason}); what was finished before is kept"
        ) from error


@contextmanager
def _usable(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(f"{out} cannot be a folder ({error.strerror}); name a new one") from error
