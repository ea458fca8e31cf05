"""Files that appear whole or not at all, and that one process at a time writes."""

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common.errors import DataError


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file that is complete whenever it can be seen, making its folder if needed.

    Raises
    ------
    DataError
        If the file cannot be written, naming its folder.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _replace(path, content)
    except OSError as error:
        reason = error.strerror or error
        raise DataError(
            f"cannot write to {path.parent} ({reason}); what was finished before is kept"
        ) from error


def sync_folder(folder: Path) -> None:
    """Put the names of a folder's files on disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep other processes out that lock the same file meanwhile; POSIX only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _replace(path: Path, content: bytes) -> None:
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as file:
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            os.replace(file.name, path)
            sync_folder(path.parent)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise
