"""The version of what a folder keeps, which programs of other versions write and read."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from common.errors import DataError
from common.storage.whole_files import locked, write_atomically

FILE = "schema"
"""The file in the folder that has the version; before the first there was none."""

Step = Callable[[Path], None]


@dataclass(frozen=True)
class Schema:
    """What a kind of folder keeps, by the steps that led there.

    Attributes
    ----------
    what : the kind of folder.
    steps : each takes a folder from one version to the next, and may be done again after a crash.
    """

    what: str
    steps: tuple[Step, ...]

    @property
    def version(self) -> int:
        """The version that this program reads and writes."""
        return len(self.steps)

    def upgrade(self, folder: Path) -> None:
        """Take a folder to this program's version; one that is missing is made.

        Raises
        ------
        DataError
            If a newer program has written it, or its version cannot be read or written.
        """
        if self._read(folder) == self.version:
            return
        with locked(folder / f"{FILE}.lock"):
            for number in range(self._read(folder), self.version):
                self.steps[number](folder)
                write_atomically(folder / FILE, str(number + 1).encode())

    def _read(self, folder: Path) -> int:
        file = folder / FILE
        try:
            found = int(file.read_text(encoding="ascii"))
        except FileNotFoundError:
            return 0
        except (OSError, ValueError) as error:
            raise DataError(f"{file} holds no version ({error}); put it back") from error
        if found > self.version:
            raise DataError(
                f"{folder} is {self.what} of version {found}, and this program knows "
                f"{self.version}; install the newer program again"
            )
        return found


def as_it_is(folder: Path) -> None:
    """Change nothing: the version before had the same files, but no number."""
