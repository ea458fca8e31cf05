"""A wrong clock for the processes of one host, by libfaketime: the machine has one clock only."""

from pathlib import Path

_LIBRARY = "faketime/libfaketimeMT.so.1"
_PLACES = ("/usr/lib", "/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/local/lib")


def clock_off_by(seconds: float) -> list[str] | None:
    """Return what goes before commands whose clock is ahead; None where libfaketime is missing.

    A clock is wrong from the start of a process. Setting it while one works would also move the
    clock by which it measures how long something takes, which no machine does.
    """
    for place in _PLACES:
        if (library := Path(place, _LIBRARY)).exists():
            return ["env", f"LD_PRELOAD={library}", f"FAKETIME={seconds:+.0f}"]
    return None
