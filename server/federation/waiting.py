"""Answers that wait for those of the sites before them, in bounded memory."""

import os
from collections.abc import Iterator
from typing import IO

from flwr.app import Array, RecordDict

from common.errors import DataError
from common.wire.messages import size

MOST = 2**30
"""Bytes that wait in memory; what comes beyond them waits on disk."""


class Waiting:
    """The waiting answers of one round, by label.

    Parameters
    ----------
    file : for those beyond what may wait in memory.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._held = file, 0
        self._contents: dict[str, RecordDict] = {}
        self._written: dict[str, list[tuple[Array, int, int]]] = {}

    def __contains__(self, label: str) -> bool:
        """Tell whether this one's answer waits."""
        return label in self._contents

    def put(self, label: str, content: RecordDict) -> None:
        """Let an answer wait.

        Raises
        ------
        DataError
            If there is no room for it on disk.
        """
        self._contents[label] = content
        if self._held + size(content) <= MOST:
            self._held += size(content)
            return
        try:
            self._written[label] = [self._write(array) for array in _arrays(content)]
            self._file.flush()
        except OSError as error:
            raise DataError(
                "answers that wait for another site's cannot be written into the run's folder "
                f"({error.strerror}); make room, then start the run again"
            ) from error

    def take(self, label: str) -> RecordDict:
        """Return an answer, which waits no longer."""
        content = self._contents.pop(label)
        if label not in self._written:
            self._held -= size(content)
        for array, place, length in self._written.pop(label, ()):
            self._file.seek(place)
            array.data = self._file.read(length)
        return content

    def _write(self, array: Array) -> tuple[Array, int, int]:
        """Move an array's bytes to the end of the file."""
        place, length = self._file.seek(0, os.SEEK_END), len(array.data)
        self._file.write(array.data)
        array.data = b""
        return array, place, length


def _arrays(content: RecordDict) -> Iterator[Array]:
    for record in content.array_records.values():
        yield from record.values()
