"""Files that are written once: keys, certificates and what stands beside them."""

import os
from pathlib import Path

from common.errors import DataError


def write_secret(path: Path, content: bytes) -> None:
    """Write a new file that only its owner may read.

    Raises
    ------
    DataError
        If it exists or cannot be written.
    """
    write_new(path, content, 0o600)


def write_new(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Write a new file.

    Raises
    ------
    DataError
        If it exists or cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
    except FileExistsError as error:
        raise DataError(f"{path} exists, and is never written over; name a new folder") from error
    except OSError as error:
        raise DataError(f"cannot write {path} ({error.strerror}); name another folder") from error
