"""A small disk of its own for one folder, which can be filled up."""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from common.errors import FedDermError

_FILLER = "filler"
_BLOCK = bytes(1 << 16)


class Disk:
    """A disk that can be filled up.

    Parameters
    ----------
    folder : where it is mounted.
    """

    def __init__(self, folder: Path) -> None:
        self._filler = folder / _FILLER

    def fill(self) -> None:
        """Leave no room on it."""
        with suppress(OSError), self._filler.open("wb", buffering=0) as file:
            while file.write(_BLOCK):
                pass

    def free(self) -> None:
        """Remove what fills it."""
        self._filler.unlink(missing_ok=True)


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Disk]:
    """Put a folder and its content on a file system in memory, which is lost at the end.

    Raises
    ------
    FedDermError
        If nothing can be mounted here.
    """
    with tempfile.TemporaryDirectory() as aside:
        content = shutil.copytree(folder, Path(aside, "content"))
        options = ["-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
        done = subprocess.run(["mount", *options], capture_output=True, text=True, check=False)
        if done.returncode:
            raise FedDermError(f"nothing can be mounted here ({done.stderr.strip()}); be root")
        shutil.copytree(content, folder, dirs_exist_ok=True)
    try:
        yield Disk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], capture_output=True, check=False)
