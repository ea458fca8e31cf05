"""What lies in a data folder: its tables and its images, in folders and zip files."""

import os
import re
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cached_property, lru_cache
from pathlib import Path
from typing import NamedTuple

from common.data.image import Location
from common.data.pictures import named_as_image
from common.data.tables.text import Table, read_table
from common.errors import DataError, reason
from common.storage.reading import open_file, read_bytes

TABLE_ENDINGS = (".csv", ".tab", ".tsv", ".txt", ".xlsx", ".xls")

_DEPTH = 3
_PUBLISHED_PART = re.compile(r"ham10000_images_part_\d+(\.zip)?", re.IGNORECASE)
_MASK = re.compile(r"segmentation", re.IGNORECASE)
# zipfile has no common error: on damaged archives it raises any of these.
_READ_ERRORS = (
    OSError,
    RuntimeError,
    ValueError,
    EOFError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)


class Found(NamedTuple):
    """Images that were found, and the folders and archives that cannot be listed."""

    images: tuple[Location, ...]
    broken: tuple[str, ...]


class Folder:
    """A data folder, listed once; tables and images are looked for when they are asked for.

    Parameters
    ----------
    path : the folder; also those inside it are looked into, three deep.

    Raises
    ------
    DataError
        If it cannot be listed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._names = sorted(os.listdir(path))
        except (OSError, ValueError) as error:  # a ValueError: no name of a folder
            why = error.strerror if isinstance(error, OSError) else error
            raise DataError(f"{path} cannot be listed ({why}); name a folder") from error
        self._read: dict[Path, Table | DataError] = {}

    def named(self, *names: str) -> Path | None:
        """Return the first of these files that lies here, by its name in lower case."""
        here = {name.lower(): name for name in self._names}
        return next((self.path / here[name] for name in names if name in here), None)

    @cached_property
    def table_files(self) -> tuple[Path, ...]:
        """Files that may be tables by their names: here, else in folders directly inside."""
        here = [self.path / name for name in self._names if _is_table(name)]
        inside = [path / n for path in self._folders() for n in _listed(path) if _is_table(n)]
        return (*here, *inside)

    def table(self, path: Path) -> Table:
        """Read a table, once.

        Raises
        ------
        DataError
            If it cannot be read as one.
        """
        if path not in self._read:
            try:
                self._read[path] = read_table(path)
            except DataError as error:
                self._read[path] = error
        table = self._read[path]
        if isinstance(table, DataError):
            raise table
        return table

    def tables(self) -> Iterator[Table]:
        """Yield the files that can be read as tables; `unreadable` has the others."""
        for path in self.table_files:
            with suppress(DataError):
                yield self.table(path)

    @property
    def unreadable(self) -> list[str]:
        """Why files cannot be read as tables."""
        errors = (each for each in self._read.values() if isinstance(each, DataError))
        return [str(error) for error in errors]

    @cached_property
    def found(self) -> Found:
        """The images, but for masks: in HAM10000's parts where there are any, else anywhere."""
        inside = [self.path / name for name in self._names if not named_as_image(name)]
        # Folders before archives: where a part is both unpacked and zipped, the files are quicker.
        inside.sort(key=lambda path: (is_zip(path), path.name))
        # The published download also holds test images and masks, which are not in the table.
        parts = [path for path in inside if _PUBLISHED_PART.fullmatch(path.name)]
        own = [Location(self.path, name) for name in self._names if named_as_image(name)]
        return _found([] if parts else own, parts or inside)

    def _folders(self) -> Iterable[Path]:
        paths = (self.path / name for name in self._names if not name.startswith("."))
        return (path for path in paths if path.is_dir())


def read_image(location: Location) -> bytes:
    """Return the bytes of one image; safe in threads and in forked processes.

    Raises
    ------
    DataError
        If the file or its archive cannot be read.
    """
    container, member = location
    try:
        if is_zip(container):
            return _archive(container, os.getpid()).read(member)
        return read_bytes(container / member)
    except _READ_ERRORS as error:
        raise DataError(
            f"{container / member} cannot be read ({reason(error)}); restore the file"
        ) from error


def is_zip(path: Path) -> bool:
    """Tell by its name whether a file is a zip archive."""
    return path.suffix.lower() == ".zip"


def _is_table(name: str) -> bool:
    return name.lower().endswith(TABLE_ENDINGS) and not name.startswith(".")


def _listed(path: Path) -> Sequence[str]:
    try:
        return sorted(os.listdir(path))
    except OSError:
        return ()


def _found(own: Sequence[Location], containers: Sequence[Path]) -> Found:
    images, broken = list(own), []
    for container in containers:
        try:
            images.extend(_inside(container))
        except _READ_ERRORS as error:
            broken.append(f"{container.name} ({reason(error)})")
    masks_left_out = (place for place in images if not _MASK.search(place.member))
    return Found(tuple(masks_left_out), tuple(broken))


def _inside(container: Path, depth: int = _DEPTH) -> Iterator[Location]:
    if _MASK.search(container.name):
        return
    if is_zip(container):
        names = _archive(container, os.getpid()).namelist()
        yield from (Location(container, name) for name in names if named_as_image(name))
    elif container.is_dir():
        names = sorted(os.listdir(container))
        yield from (Location(container, name) for name in names if named_as_image(name))
        folders = (
            container / name for name in names if not named_as_image(name) and name[0] != "."
        )
        for folder in folders if depth > 1 else ():
            if folder.is_dir():
                yield from _inside(folder, depth - 1)


@lru_cache(maxsize=16)
def _archive(path: Path, process: int) -> zipfile.ZipFile:
    # A forked process shares the file's offset with its parent: each opens the archive itself.
    return zipfile.ZipFile(open_file(path))
