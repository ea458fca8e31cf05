"""What a site keeps from one round of a run to the next: SCAFFOLD's control variates."""

import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from common.errors import Reason, RefusalError
from common.files import locked
from common.verified import read_arrays, write_arrays

Numbers = NDArray[Any]


class SiteState:
    """Arrays of one run, by the round that they are for.

    Those of earlier rounds are kept until a later round begins, so that a coordinator that was
    killed can ask for its last round again and gets the very same answer.

    Parameters
    ----------
    folder : of this site and run folder.
    run : names the run, in hexadecimal; what another one left is never read.

    Raises
    ------
    RefusalError
        If ``run`` is no such name: it is the coordinator's word, and becomes a file's name.
    """

    def __init__(self, folder: Path, run: str) -> None:
        if not re.fullmatch("[0-9a-f]{1,64}", run):
            raise RefusalError(Reason.FORM, f"{run!r} is no name of a run")
        self._folder, self._run = folder, run

    @property
    def last(self) -> int | None:
        """The last round for which arrays were saved; None if there is none."""
        return max(self._rounds(), default=None)

    def locked(self) -> AbstractContextManager[None]:
        """Keep other processes of this site from answering for the same run meanwhile."""
        return locked(self._folder / f"{self._run}.lock")

    def load(self, number: int) -> dict[str, Numbers]:
        """Return what was last saved for a round up to ``number``; forget what came before.

        Raises
        ------
        DataError
            If it is damaged: no other can be had.
        """
        rounds = sorted(self._rounds())
        usable = [each for each in rounds if each <= number]
        for each in usable[:-1]:
            self._file(each).unlink()
        return read_arrays(self._file(usable[-1]))[0] if usable else {}

    def save(self, number: int, arrays: Mapping[str, Numbers]) -> None:
        """Keep arrays for round ``number`` and later ones.

        Raises
        ------
        DataError
            If they cannot be written; those of earlier rounds remain.
        """
        write_arrays(self._file(number), arrays)

    def _rounds(self) -> list[int]:
        files = self._folder.glob(f"{self._run}-*.safetensors")
        return [int(file.stem.rpartition("-")[2]) for file in files]

    def _file(self, number: int) -> Path:
        return self._folder / f"{self._run}-{number}.safetensors"
