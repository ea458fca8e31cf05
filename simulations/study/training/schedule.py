"""Cells side by side on the cores of this machine, each in a process of its own."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from common.storage.verified import read_json
from common.storage.whole_files import write_atomically
from simulations.runtimes.stop_signals import sigterm_raises, stops_deferred
from simulations.study.cells import Cell
from simulations.study.definition import Study
from simulations.study.training.train_cell import JOB_FILE, RESULT_FILE

FAILURE_FILE = "failure.txt"
LOG_FILE = "log.txt"

_MEMORY = 3 * 2**30
"""What a cell may need, in bytes: so many run side by side at most."""

_POLL = 0.1

_log = logging.getLogger(__name__)


def cores() -> list[int]:
    """Return the cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux only
    return sorted(affinity(0)) if affinity else list(range(os.cpu_count() or 1))


def default_jobs() -> int:
    """Return how many cells fit on this machine: one on each core, as far as memory allows."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, min(len(cores()), memory // _MEMORY))


def finished(folder: Path) -> bool:
    """Tell whether a cell is done."""
    return (folder / RESULT_FILE).exists()


@dataclass(frozen=True)
class _Running:
    """A cell that is being trained, since when, and on which cores."""

    process: "subprocess.Popen[bytes]"
    started: float
    own: list[int]


def run_cells(study: Study, data: Path, cache: Path, folders: dict[Path, Cell], jobs: int) -> None:
    """Train the cells that are not finished; those that failed before are tried again.

    What a cell says goes to ``log.txt`` in its folder; why it failed, to ``failure.txt``. A stop
    ends the cells that are running; the next call goes on with them.

    Parameters
    ----------
    folders : the folders of the cells, in the order in which they are trained.
    jobs : cells side by side; each has its share of the cores to itself.
    """
    waiting = [folder for folder in folders if not finished(folder)]
    clock = _Clock(folders, jobs)
    free = [cores()[number::jobs] or cores() for number in range(jobs)]
    running: dict[Path, _Running] = {}
    with (
        sigterm_raises(),
        _ended(running),
        logging_redirect_tqdm(),
        _bar(len(folders), len(waiting)) as bar,
    ):
        while waiting or running:
            while waiting and free:
                folder = waiting.pop(0)
                _describe(folder, study, data, cache, folders[folder])
                with stops_deferred():
                    running[folder] = _start(folder, free.pop(0))
            for folder in [f for f, cell in running.items() if cell.process.poll() is not None]:
                cell = running.pop(folder)
                free.append(cell.own)
                _close(folder, cell.process.returncode)
                clock.add(folders[folder], seconds := time.monotonic() - cell.started)
                left = clock.left([folders[f] for f in waiting], len(running))
                done = len(folders) - len(waiting) - len(running)
                _log_progress(folder, seconds, f"{done} of {len(folders)} cells", left)
                bar.update()
                bar.set_postfix_str(f"about {_span(left)} left")
            time.sleep(_POLL)


def failure(folder: Path) -> str | None:
    """Return why a cell failed, None if it did not."""
    file = folder / FAILURE_FILE
    return file.read_text(encoding="utf-8") if file.exists() else None


class _Clock:
    """The seconds that cells took, and an estimate for those that are left."""

    def __init__(self, folders: dict[Path, Cell], jobs: int) -> None:
        self._jobs = jobs
        self._seconds: defaultdict[tuple[object, ...], list[float]] = defaultdict(list)
        for folder, cell in folders.items():
            if finished(folder):
                seconds = read_json(folder / RESULT_FILE)["seconds"]
                if seconds is not None:
                    self.add(cell, seconds["wall"])

    def add(self, cell: Cell, seconds: float) -> None:
        """Add the seconds of a finished cell."""
        for key in _kinds(cell):
            self._seconds[key].append(seconds)

    def left(self, cells: Sequence[Cell], running: int) -> float:
        """Estimate the seconds left, each cell from the most similar ones that are known."""
        known = (next(k for k in _kinds(cell) if k in self._seconds) for cell in cells)
        waiting = sum(fmean(self._seconds[key]) for key in known)
        begun = running * fmean(self._seconds[()]) / 2
        return (waiting + begun) / self._jobs


def _kinds(cell: Cell) -> list[tuple[object, ...]]:
    arm = cell.arm
    return [tuple(arm), (arm.route, arm.scale), (arm.route,), ()]


def _describe(folder: Path, study: Study, data: Path, cache: Path, cell: Cell) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FAILURE_FILE).unlink(missing_ok=True)
    job = {
        "data": str(data.resolve()),
        "cache": str(cache),
        "study": study.model_dump(mode="json"),
        "arm": list(cell.arm),
        "fold": cell.fold,
    }
    write_atomically(folder / JOB_FILE, (json.dumps(job, indent=1) + "\n").encode())


def _start(folder: Path, own: list[int]) -> _Running:
    threads = str(len(own))
    limits = {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
    command = [
        sys.executable,
        "-m",
        "simulations.study.training.train_cell",
        str(folder),
        *map(str, own),
    ]
    with (folder / LOG_FILE).open("ab") as log:
        # A group of its own: a Ctrl-C is for this process, which then ends the cells.
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env={**os.environ, **limits}, process_group=0
        )
    return _Running(process, time.monotonic(), own)


def _log_progress(folder: Path, seconds: float, done: str, left: float) -> None:
    outcome = "done" if finished(folder) else f"FAILED: {failure(folder)}"
    _log.info(
        "%s, about %s left. %s: %s in %.0f s", done, _span(left), folder.name, outcome, seconds
    )


def _close(folder: Path, code: int) -> None:
    """Keep the reason of a cell that failed."""
    if finished(folder):
        return
    lines = (folder / LOG_FILE).read_text(encoding="utf-8", errors="replace").splitlines()
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    reason = last.removeprefix("error: ")
    if code < 0:
        reason = f"ended by {signal.Signals(-code).name}" + (
            ", perhaps for want of memory" if code == -signal.SIGKILL else ""
        )
    write_atomically(folder / FAILURE_FILE, (reason or f"ended with code {code}").encode())


@contextmanager
def _ended(running: Mapping[Path, _Running]) -> Iterator[None]:
    """End what still runs when this process is stopped."""
    try:
        yield
    finally:
        for cell in running.values():
            cell.process.terminate()
        for cell in running.values():
            cell.process.wait()


def _bar(cells: int, left: int) -> Any:
    return tqdm(total=cells, initial=cells - left, unit="cell", disable=None, dynamic_ncols=True)


def _span(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes / 60:.1f} h"
