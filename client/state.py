"""What a site keeps of a run from one message to the next: where it lies, and when it goes.

In a hospital each message is answered by a process of its own, so all that is to last is on disk:

- the *scratch* folder of a run, among what can be computed again, until the run is closed;
- the *count* of its rounds, which at a hospital no question takes back;
- *arrays by round*, which a run that goes on after an interruption finds again.
"""

import hashlib
import re
import shutil
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path

from client.sealed_log import SealedLog
from common.errors import Reason, RefusalError
from common.storage.schema import Schema, as_it_is
from common.storage.verified import Array, map_array, read_arrays, write_arrays
from common.storage.whole_files import append, locked

STATE = Schema("a hospital's state", (as_it_is,))
"""Ledger, egress log, identity, counts of rounds, and runs that go on, as this program has them."""

SECURE_LOG = ".secure.jsonl"
"""End of the names of the logs that secure sums keep of a run."""


def kept_array(file: Path, missing: str) -> Array:
    """Return an array that an earlier question of a run left on disk, mapped into memory.

    Parameters
    ----------
    missing : what a site says where the question did not come, and what to do.

    Returns
    -------
    An array of the shape (...) and type that it was written with.

    Raises
    ------
    RefusalError
        If the file is not there.
    DataError
        If it is not what was written.
    """
    try:
        return map_array(file)
    except FileNotFoundError as error:
        raise RefusalError(Reason.ORDER, missing) from error


@dataclass(frozen=True)
class SiteState:
    """What one site keeps of the runs of one run folder.

    Attributes
    ----------
    data : folder of the site's images.
    out : folder of the run, which the coordinator chooses.
    cache : folder of what can be computed again.
    own : folder of what must not be lost.
    seals : folder of the seals of logs.
    deployed : whether the site is a hospital's, whose runs each have a number of their own.
    """

    data: Path
    out: Path | None
    cache: Path
    own: Path
    seals: Path
    deployed: bool

    def scratch(self, run: int) -> Path:
        """Return the folder that keeps this site's arrays between the messages of one run."""
        return self.cache / "scratch" / self._name_of(str(run))

    @property
    def folder(self) -> Path:
        """The folder of what a run needs that goes on after an interruption, under a new number."""
        return self.own / "runs" / self._name_of("state")

    def rounds(self, run: int) -> "RoundCount":
        """Return the count of a run's rounds."""
        folder = self.own / "rounds" if self.deployed else self.scratch(run)
        return RoundCount(folder / f"{run}.count")

    def by_round(self, run: str) -> "RoundArrays":
        """Return what this site keeps for the rounds of a run, by the run's name."""
        return RoundArrays(self.folder, run)

    def begin(self, run: int) -> None:
        """Forget the count that a simulation left which was killed: they all have one number."""
        if not self.deployed:
            self.rounds(run).forget()

    def close(self, run: int, finished: bool) -> None:
        """Forget what was kept for one run; what an unfinished one needs to go on is kept."""
        shutil.rmtree(self.scratch(run), ignore_errors=True)
        if finished:
            for log in self.folder.glob(f"*{SECURE_LOG}"):
                SealedLog.at(log, self.seals, "secure").remove()
            shutil.rmtree(self.folder, ignore_errors=True)
            for folder in (self.folder.parent, self.seals):
                with suppress(OSError):  # missing, or in use by other runs
                    folder.rmdir()

    def _name_of(self, kind: str) -> str:
        run = f"{self.data.resolve()}\n{self.out}\n{kind}"
        return hashlib.sha256(run.encode()).hexdigest()[:32]


class RoundCount:
    """How many rounds of a run were answered, on disk before each answer leaves.

    Parameters
    ----------
    file : the file, which has as many bytes as rounds were counted.
    """

    def __init__(self, file: Path) -> None:
        self._file = file

    def add(self, limit: int) -> None:
        """Count a round that is to be answered.

        Raises
        ------
        RefusalError
            If ``limit`` rounds were.
        DataError
            If it cannot be counted.
        """
        with locked(self._file):
            done = self._file.stat().st_size
            if done >= limit:
                raise RefusalError(
                    Reason.ORDER,
                    f"{done} rounds were answered in this run, no more may follow",
                )
            append(self._file, b".")

    def forget(self) -> None:
        """Set the count to 0."""
        self._file.unlink(missing_ok=True)


class RoundArrays:
    """Arrays of one run, by the round that they are for.

    Those of earlier rounds are kept until a later round begins, so that a coordinator that was
    killed can ask for its last round again and gets the same answer.

    Parameters
    ----------
    folder : the folder for this site and this run's folder.
    run : names the run, in hexadecimal; what another one left is never read.

    Raises
    ------
    RefusalError
        If ``run`` is no such name: the coordinator chooses it, and it becomes a file's name.
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

    def load(self, number: int) -> dict[str, Array]:
        """Return what was last saved for a round up to ``number``; forget what came before.

        Names and shapes are those that :meth:`save` was given; nothing was saved: no arrays.

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

    def save(self, number: int, arrays: Mapping[str, Array]) -> None:
        """Keep ``arrays``, of any shape, for round ``number`` and later ones.

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
