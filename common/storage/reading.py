"""Reads files that others name, which may be no regular files or have impossible names."""

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO


def open_file(path: Path) -> BinaryIO:
    """Open a regular file for reading, and no pipe, which may block, or device, which may not end.

    Raises
    ------
    OSError
        If it is no regular file or cannot be opened, or if its name has a NUL character.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except ValueError as error:
        raise OSError(errno.EINVAL, "no name of a file", str(path)) from error
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    raise OSError(errno.EINVAL, "no regular file", str(path))


def read_bytes(path: Path) -> bytes:
    """Return what is in a regular file; errors are those of :func:`open_file`."""
    with open_file(path) as file:
        return file.read()


def read_text(path: Path) -> str:
    """Return what is in a regular file of UTF-8, with or without a mark at its beginning.

    Raises
    ------
    OSError
        Those of :func:`open_file`.
    UnicodeDecodeError
        If it is no text.
    """
    return read_bytes(path).decode("utf-8-sig")
