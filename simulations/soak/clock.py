"""The clock of one host on a machine that has one clock: libfaketime sets it for its processes."""

from pathlib import Path
from typing import Self

from common.files import write_atomically

_LIBRARY = "faketime/libfaketimeMT.so.1"
_PLACES = ("/usr/lib", "/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/local/lib")


class Clock:
    """Sets the clock of what is started with its command, then and later.

    Parameters
    ----------
    library : of libfaketime.
    file : a new file; the processes read from it how far their clock is off.
    """

    def __init__(self, library: Path, file: Path) -> None:
        self._library, self._file = library, file
        self.set(0)

    @classmethod
    def found(cls, file: Path) -> Self | None:
        """Return a clock where this machine has libfaketime."""
        for place in _PLACES:
            if (library := Path(place, _LIBRARY)).exists():
                return cls(library, file)
        return None

    @property
    def command(self) -> list[str]:
        """What goes before the commands that are to have this clock."""
        return [
            "env",
            f"LD_PRELOAD={self._library}",
            f"FAKETIME_TIMESTAMP_FILE={self._file.resolve()}",
            "FAKETIME_NO_CACHE=1",
            # What measures how long something takes is not the clock on the wall.
            "FAKETIME_DONT_FAKE_MONOTONIC=1",
        ]

    def set(self, seconds: float) -> None:
        """Put the clock so far ahead of the machine's, or behind it."""
        write_atomically(self._file, f"{seconds:+.0f}\n".encode())
