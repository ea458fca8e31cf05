"""What processes reach and what they leave behind, seen from outside: by the kernel's calls."""

import contextlib
import functools
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.calls_home import SWITCHES

_STRACE = ("strace", "--seccomp-bpf", "-qq", "-e", "trace=bind,connect,sendto,sendmsg,sendmmsg")
HIDING = {"CI", *SWITCHES}
"""Variables under which libraries do not call home: a process that is watched sets its own."""

_ADDRESS = re.compile(r'sin6?_port=htons\((\d+)\).*?(?:inet_addr\(|AF_INET6, )"([^"]+)"')
_LOOPBACK = re.compile(r"(::ffff:)?127\.|::1$")
_RESOLVER = "/run/systemd/resolve/"
_NAMES = "53"


@functools.cache
def _can_watch() -> bool:
    if not shutil.which("strace"):
        return False
    command = [*_STRACE, "-f", "-o", os.devnull, "true"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


class Watch:
    """A fresh home for processes, and a record of whom they call; native libraries included.

    Where ``strace`` is missing or not allowed, processes run all the same, unwatched, and whoever
    asks what was seen skips the rest of the test.
    """

    def __init__(self, folder: Path) -> None:
        self.home, self._calls = folder / "home", folder / "calls"
        self.home.mkdir(parents=True)
        self._calls.mkdir()

    @property
    def prefix(self) -> list[str]:
        """Return the command that starts another one watched."""
        return [*_STRACE, "-ff", "-o", str(self._calls / "of")] if _can_watch() else []

    @property
    def environment(self) -> dict[str, str]:
        """Return the environment for it, without what would hide a call."""
        inherited = {name: value for name, value in os.environ.items() if name not in HIDING}
        return {**inherited, "HOME": str(self.home)}

    def run(self, *command: object) -> str:
        """Run a command, watched, that must not fail; return its standard output."""
        line = [*self.prefix, *map(str, command)]
        run = subprocess.run(
            line, env=self.environment, capture_output=True, text=True, check=False
        )
        assert run.returncode == 0, run.stderr
        return run.stdout

    def reached(self) -> set[str]:
        """Return addresses and ports beyond this machine, and what was asked for names."""
        if not _can_watch():
            pytest.skip("processes cannot be watched here; install strace and allow it")
        files = list(self._calls.iterdir())
        assert files, "nothing was watched"
        return {away for file in files for away in _away(file.read_text(errors="replace"))}

    def left(self) -> set[str]:
        """Return the folders in the home in which files were left."""
        files = (path for path in self.home.rglob("*") if not path.is_dir())
        return {str(path.parent.relative_to(self.home)) for path in files}


def processes_of(home: Path) -> list[str]:
    """Return the commands of the processes in whose environment a folder is named."""
    processes = []
    for environ in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):  # it has ended, or belongs to another user
            if str(home) in environ.read_text(errors="replace"):
                processes.append(environ.with_name("cmdline").read_text())
    return processes


def _away(calls: str) -> Iterator[str]:
    for port, address in _ADDRESS.findall(calls):
        if port == _NAMES or not _LOOPBACK.match(address):
            yield f"{address} port {port}"
    if _RESOLVER in calls:
        yield _RESOLVER
