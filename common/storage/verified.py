"""Files that carry a digest of their content, so that damage is noticed on reading.

Reading notices a flipped bit, a lost end or another file of the same name. The reader then computes
the content again, or ends with an error of one line.
"""

import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from common.errors import DataError, reason
from common.json_types import Json, JsonObject
from common.storage.whole_files import write_atomically

Array = NDArray[Any]
"""An array in a file: whoever reads it knows which type its numbers must have."""

FORMAT_ERRORS = (
    *(OSError, SafetensorError, LookupError, TypeError, ValueError, AttributeError),
    *(ArithmeticError, RecursionError, MemoryError),
)
"""What comes of reading bytes that somebody else made, or a disk."""

_ABOUT = "fedderm"
_DIGEST = "sha256"
_DIGEST_BYTES = hashlib.sha256().digest_size
_LONGEST_HEADER = 2**24
_LONGEST_ABOUT = 2**16


class DamagedError(DataError):
    """A file is not what was written."""

    def __init__(self, path: Path, why: str = "it is not what was written") -> None:
        super().__init__(f"{path} is damaged ({why}); remove it and start again")


def write_verified(path: Path, content: bytes) -> None:
    """Write bytes and their digest, whole or not at all.

    Raises
    ------
    DataError
        If the file cannot be written.
    """
    write_atomically(path, content + hashlib.sha256(content).digest())


def read_verified(path: Path) -> bytes:
    """Return the bytes that :func:`write_verified` wrote.

    Raises
    ------
    DamagedError
        If they are not.
    FileNotFoundError
        If there is no file.
    """
    whole = path.read_bytes()
    content = whole[:-_DIGEST_BYTES]
    if hashlib.sha256(content).digest() != whole[-_DIGEST_BYTES:]:
        raise DamagedError(path)
    return content


def write_array(path: Path, array: Array) -> None:
    """Write ``array``, of any shape, for :func:`map_array` to map into memory.

    Raises
    ------
    DataError
        If the file cannot be written.
    """
    content = io.BytesIO()
    np.save(content, array)
    write_verified(path, content.getvalue())


def map_array(path: Path) -> Array:
    """Map an array into memory, in the shape it had, so that only what is used is read again.

    A file is checked as a whole once in a process, and again if it was written again.

    Raises
    ------
    DamagedError
        If it is not what :func:`write_array` wrote.
    FileNotFoundError
        If there is no file.
    """
    stat = path.stat()
    _check(path, stat.st_ino, stat.st_mtime_ns, stat.st_size)
    array: Array = np.load(path, mmap_mode="r")
    return array


def write_json(path: Path, fields: Mapping[str, Json]) -> None:
    """Write an object as JSON that begins with its digest.

    Raises
    ------
    DataError
        If the file cannot be written.
    """
    write_atomically(path, (json.dumps(_sealed(fields, {}), indent=1) + "\n").encode())


def read_json(path: Path) -> JsonObject:
    """Return the object that :func:`write_json` wrote.

    Raises
    ------
    DamagedError
        If it is not.
    FileNotFoundError
        If there is no file.
    """
    with _damaged(path):
        digest, fields = _opened(path.read_text(encoding="utf-8"))
        _compare(digest, fields, {})
    return fields


def pack_arrays(arrays: Mapping[str, Array], fields: Mapping[str, Json]) -> bytes:
    """Return a safetensors file of ``arrays`` of any shape and an object, with their digest."""
    contiguous = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    # One key: safetensors writes several in random order, and equal files differ.
    return save(contiguous, {_ABOUT: json.dumps(_sealed(fields, contiguous))})


def write_arrays(
    path: Path, arrays: Mapping[str, Array], fields: Mapping[str, Json] | None = None
) -> None:
    """Write ``arrays`` of any shape, and an object that JSON can hold, as one safetensors file.

    Raises
    ------
    DataError
        If the file cannot be written.
    """
    write_atomically(path, pack_arrays(arrays, fields or {}))


def read_arrays(path: Path) -> tuple[dict[str, Array], JsonObject]:
    """Return the arrays, in the shapes they had, and the object that :func:`write_arrays` wrote.

    Raises
    ------
    DamagedError
        If they are not.
    FileNotFoundError
        If there is no file.
    """
    with _damaged(path), open_arrays(path) as stored:
        return stored.read(), dict(stored.fields)


class Kind(NamedTuple):
    """What an array in a file claims to be; ``dtype`` by its name in safetensors."""

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class StoredArrays:
    """An open file of arrays, of which only the description was read.

    Attributes
    ----------
    fields : the object beside the arrays, not yet compared with its digest.
    kinds : the kinds of the arrays, by name.
    """

    fields: Mapping[str, Any]
    kinds: Mapping[str, Kind]
    _digest: object
    _file: Any

    def read(self) -> dict[str, Array]:
        """Return the arrays, of the shapes in ``kinds``.

        Raises
        ------
        ValueError
            If they or the object are not what was written.
        """
        arrays = {name: self._file.get_tensor(name) for name in self.kinds}
        _compare(self._digest, self.fields, arrays)
        return arrays


@contextmanager
def open_arrays(path: Path) -> Iterator[StoredArrays]:
    """Open a file of arrays, whoever wrote it.

    Anything else raises one of ``FORMAT_ERRORS``; a large description is refused unread.
    """
    if not path.is_file():  # a pipe would wait for ever
        raise FileNotFoundError(f"there is no file {path}")
    with path.open("rb") as file:
        if int.from_bytes(file.read(8), "little") > _LONGEST_HEADER:
            raise ValueError("its header is too long")
    with safe_open(path, "numpy") as file:
        about = file.metadata()[_ABOUT]
        if len(about) > _LONGEST_ABOUT:
            raise ValueError("its description is too long")
        digest, fields = _opened(about)
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        kinds = {n: Kind(s.get_dtype(), tuple(s.get_shape())) for n, s in slices.items()}
        yield StoredArrays(fields, kinds, digest, file)


@lru_cache(maxsize=4096)
def _check(path: Path, number: int, modified: int, size: int) -> None:
    read_verified(path)


@contextmanager
def _damaged(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise
    except FORMAT_ERRORS as error:
        raise DamagedError(path, reason(error)) from error


def _sealed(fields: Mapping[str, Any], arrays: Mapping[str, Array]) -> dict[str, Any]:
    return {_DIGEST: _digest(fields, arrays), **fields}


def _opened(text: str) -> tuple[object, dict[str, Any]]:
    """Return the digest that a text carries, and the object."""
    fields = json.loads(text)
    if not isinstance(fields, dict):
        raise ValueError("its description is no object")
    return fields.pop(_DIGEST, None), fields


def _compare(digest: object, fields: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
    if digest != _digest(fields, arrays):
        raise ValueError("it is not what was written")


def _digest(fields: Mapping[str, Any], arrays: Mapping[str, Array]) -> str:
    digest = hashlib.sha256(json.dumps(fields).encode())
    for name, array in sorted(arrays.items()):
        digest.update(repr((name, array.shape, str(array.dtype))).encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
