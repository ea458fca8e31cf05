"""What this process changes below a folder: seen, refused for want of room, or interrupted.

Python announces every change before it is made, to a hook that may refuse it; so a test need not
know who writes what.
"""

import errno
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

Watch = Callable[[str, Path], None]
"""Is told of a change before it is made, by the event's name and where it is."""

GROWING = {"open", "os.mkdir", "os.rename", "os.symlink"}
_CHANGES = {*GROWING, "os.remove", "os.rmdir", "os.truncate", "shutil.rmtree"}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT

_watch: Watch | None = None


@contextmanager
def watched(folder: Path, watch: Watch) -> Iterator[None]:
    """Tell of every change below a folder."""
    global _watch

    def below(event: str, path: Path) -> None:
        if path.is_relative_to(folder):
            watch(event, path)

    _watch = below
    try:
        yield
    finally:
        _watch = None


@contextmanager
def room_for(folder: Path, changes: int) -> Iterator[None]:
    """Let a folder's disk be full after so many changes that need room."""
    left = changes

    def watch(event: str, path: Path) -> None:
        nonlocal left
        if event in GROWING:
            left -= 1
            if left < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    with watched(folder, watch):
        yield


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    global _watch
    if _watch is None or event not in _CHANGES:
        return
    if event == "open" and not int(str(arguments[2])) & _WRITING:
        return
    path = arguments[1] if event in ("os.rename", "os.symlink") else arguments[0]
    if isinstance(path, str | os.PathLike):
        # What the watch itself changes is nothing to tell of.
        watch, _watch = _watch, None
        try:
            watch(event, Path(path))
        finally:
            _watch = watch


sys.addaudithook(_hook)  # for good; it does nothing unless a test watches
