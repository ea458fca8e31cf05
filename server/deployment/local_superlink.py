"""The SuperLink that ``flwr run`` starts for simulations and leaves running."""

import os
from contextlib import suppress
from pathlib import Path

from common.flower_inside import is_local_superlink


def local_superlink() -> int | None:
    """Return its process id if this process descends from it, else None; None off Linux too."""
    process = os.getpid()
    with suppress(OSError):
        while process > 1:
            folder = Path("/proc", str(process))
            command = (folder / "cmdline").read_bytes().split(b"\0")
            if is_local_superlink(command):
                return process
            # The name, in brackets, may hold spaces and brackets.
            process = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    return None
