"""The added sums of a run on disk, so that a coordinator that is started again goes on.

Sites and coordinator are deterministic: after a crash the same run asks the same questions,
and those whose sums are here need not be asked. A file is named after all that its sums
depend on, so sums over other sites or other data are never taken for them.
"""

import hashlib
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from common.errors import ReplyError
from common.statistics.sums import S, Sums
from common.storage.verified import DamagedError, read_arrays, write_arrays

if TYPE_CHECKING:  # it imports Flower, which whoever reads a run's folder does without
    from common.wire.messages import Arrays, Value

_log = logging.getLogger(__name__)


def question_key(
    question: str, fingerprints: Mapping[str, str], arrays: "Arrays", values: "Mapping[str, Value]"
) -> str:
    """Return a file name for the sums over sites.

    Parameters
    ----------
    fingerprints : the digests of the data, by site.
    arrays, values : what goes with the question; arrays of any shape.
    """
    digest = hashlib.sha256(repr((question, sorted(fingerprints.items()))).encode())
    digest.update(repr(sorted(values.items())).encode())
    for name, array in sorted(arrays.items()):
        digest.update(repr((name, array.shape, str(array.dtype))).encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return f"{question}-{digest.hexdigest()[:32]}"


class Journal:
    """Sums by key in one folder; each is there whole or not at all."""

    def __init__(self, folder: Path):
        self._folder = folder

    def recall(self, key: str, zero: S) -> S | None:
        """Return the sums under ``key`` if they are there, whole, and look like ``zero``.

        Damaged sums can be asked for again: the sites give the same answer.
        """
        try:
            arrays, _ = read_arrays(self._path(key))
            return zero.from_record(arrays)
        except FileNotFoundError:
            return None
        except (DamagedError, ReplyError) as error:
            _log.warning("%s: the sites are asked again (%s)", self._path(key), error)
            return None

    def keep(self, key: str, sums: Sums) -> None:
        """Write sums; an acknowledgement holds none, so its command is always sent again.

        Raises
        ------
        DataError
            If they cannot be written.
        """
        if record := sums.to_record():
            write_arrays(self._path(key), record)

    def clear(self) -> None:
        """Remove all sums: the run is finished."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.safetensors"
