"""Rows on disk in shards, which are written once, named by a digest and checked on reading.

Any number of processes may write into one folder: a shard appears whole or not at all, and equal
shards have equal names. So a run that was killed goes on with every shard it finished.
"""

import hashlib
import logging
from collections.abc import Collection, Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import load, save

from common.errors import DataError
from common.storage.whole_files import write_atomically

_SUFFIX = ".safetensors"
_log = logging.getLogger(__name__)


def write_shard(folder: Path, rows: Mapping[str, NDArray[np.number]]) -> None:
    """Write ``rows``, arrays of one shape under hexadecimal keys, as one shard.

    Raises
    ------
    DataError
        If the shard cannot be written; shards written before remain.
    """
    keys = np.frombuffer(bytes.fromhex("".join(rows)), dtype=np.uint8).reshape(len(rows), -1)
    content = save({"keys": keys, "values": np.stack(list(rows.values()))})
    write_atomically(folder / f"{hashlib.sha256(content).hexdigest()}{_SUFFIX}", content)


def read_rows(folder: Path, keys: Collection[str]) -> dict[str, NDArray[np.floating]]:
    """Return those rows of a folder's shards whose key is in ``keys``, in the shape they had.

    A shard whose content does not match its name is removed with a warning. Each is checked
    once in a process, so that many sites may pick their rows from the same shards.
    """
    rows: dict[str, NDArray[np.floating]] = {}
    for path in sorted(folder.glob(f"*{_SUFFIX}")):
        numbers = _index(path)
        if wanted := numbers.keys() & keys:
            with safe_open(path, "numpy") as file:
                values = file.get_slice("values")
                first, last = (f(numbers[key] for key in wanted) for f in (min, max))
                part = values[first : last + 1]
                rows |= {key: part[numbers[key] - first].copy() for key in wanted}
    return rows


def _index(path: Path) -> Mapping[str, int]:
    """Return the number of each key's row; nothing for a shard that has just been removed."""
    try:
        stat = path.stat()
        return _checked_index(path, stat.st_mtime_ns, stat.st_size)
    except FileNotFoundError:  # another process found it damaged
        return {}
    except OSError as error:
        raise DataError(f"cannot read {path} ({error.strerror}); remove it") from error
    except _DamagedError:
        _log.warning("%s is damaged: removed, its features are computed again", path)
        path.unlink(missing_ok=True)
        return {}


@lru_cache(maxsize=4096)
def _checked_index(path: Path, modified: int, size: int) -> Mapping[str, int]:
    """Check a shard against its name; a file that was written again since counts as another one."""
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != path.stem:
        raise _DamagedError
    return {key.tobytes().hex(): number for number, key in enumerate(load(content)["keys"])}


class _DamagedError(Exception):
    """A shard is not what it was when it was written."""
