"""What the processes of a host use, as Linux counts it: memory, open files, and the disk."""

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


@dataclass(frozen=True)
class Usage:
    """What one host uses.

    Attributes
    ----------
    processes : how many run there.
    megabytes : of memory that they hold themselves, together.
    handles : files and connections that they have open.
    disk_megabytes : of the host's folder.
    """

    processes: int
    megabytes: float
    handles: int
    disk_megabytes: float

    def grown(self, before: "Usage", bounds: "Usage") -> list[str]:
        """Name what has grown since ``before`` by more than its bound."""
        now, then, most = asdict(self), asdict(before), asdict(bounds)
        return [
            f"{name} from {then[name]:g} to {now[name]:g}"
            for name in now
            if now[name] - then[name] > most[name]
        ]


def usage(processes: Iterable[int], folder: Path) -> Usage:
    """Measure processes and a folder; a process that ends meanwhile is left out."""
    pages = handles = count = 0
    for process in processes:
        with suppress(OSError):
            here = Path("/proc", str(process))
            _, resident, shared, *_ = map(int, (here / "statm").read_text().split())
            opened = len(list((here / "fd").iterdir()))
            pages, handles, count = pages + resident - shared, handles + opened, count + 1
    sizes = [_size(file) for file in folder.rglob("*")]
    return Usage(count, round(pages * _PAGE / 1e6, 1), handles, round(sum(sizes) / 1e6, 1))


def _size(file: Path) -> int:
    with suppress(OSError):
        return 0 if file.is_symlink() else file.lstat().st_blocks * 512
    return 0
