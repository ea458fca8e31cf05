"""Progress of a long run: a bar on a terminal, lines in the log, files in the run folder."""

import logging
import math
import time
from collections import deque
from collections.abc import Mapping
from contextlib import ExitStack
from statistics import fmean
from types import TracebackType
from typing import Any, Self

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from server.run.folder import RunFolder

TENSORBOARD_FOLDER = "tensorboard"
TRAINING_FILE = "training.jsonl"

_RECENT = 10
"""Rounds that the time left is estimated from: the first of a stage may fill caches."""

_SHOWN = ("loss", "balanced_accuracy")
"""Facts beside the bar, which is to have room in 80 columns."""

_LINE_SECONDS = 1.0
"""Least time between two lines of the log: quick rounds are not told of one by one there."""

_log = logging.getLogger(__name__)


class Progress:
    """Reports each round; leaving this context manager closes the bar and the event file.

    Report a round before the checkpoint after it: if the run is killed between the two, the round
    is repeated, its first report is dropped, and every round is kept once.

    Parameters
    ----------
    folder : gets ``training.jsonl`` and, with ``tensorboard``, event files.
    rounds : rounds of the whole run; None where the number is unknown, and no bar is shown.
    tensorboard : whether to write event files for TensorBoard.
    done : rounds that the checkpoint holds; reports of later ones are dropped.
    """

    def __init__(
        self, folder: RunFolder, rounds: int | None, tensorboard: bool, done: int = 0
    ) -> None:
        self._folder, self._rounds = folder, rounds
        self._stage = ""
        self._recent: deque[float] = deque(maxlen=_RECENT)
        self._latest: dict[str, float] = {}
        self._closing = ExitStack()
        self._bar = self._closing.enter_context(_bar(rounds, done))
        self._events = None
        if tensorboard:
            self._events = self._closing.enter_context(_event_file(folder, done))
        folder.trim(TRAINING_FILE, done)
        self._sent = folder.bytes_down, folder.bytes_up
        self._then, self._logged = time.monotonic(), -math.inf

    def __enter__(self) -> Self:
        if not self._bar.disable:
            self._closing.enter_context(logging_redirect_tqdm())  # lines go above the bar
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._closing.close()

    def round(self, number: int, stage: str, facts: Mapping[str, float | None]) -> None:
        """Report a finished round.

        Parameters
        ----------
        number : its number in the whole run, from 0.
        stage : its stage.
        facts : what was measured, by name; None for what was not.
        """
        measured = {**self._lap(stage), **facts}
        plan = {"rounds": self._rounds, "seconds_left": self._seconds_left(number)}
        line = {"round": number + 1, "stage": stage, **plan, **measured}
        self._folder.append(TRAINING_FILE, line)
        if self._events is not None:
            for name, value in measured.items():
                if value is not None:
                    self._events.add_scalar(name, value, number + 1)
        known = {name: value for name, value in facts.items() if value is not None}
        if self._then - self._logged >= _LINE_SECONDS:
            self._log_line(number, stage, known)
        if not self._bar.disable:
            self._latest |= {name: known[name] for name in _SHOWN if name in known}
            self._bar.n = number + 1
            shown = [f"stage {stage}", *self._left(number), *_texts(self._latest)]
            self._bar.set_description_str(", ".join(shown))

    def _log_line(self, number: int, stage: str, known: Mapping[str, float]) -> None:
        of = f" of {self._rounds}" if self._rounds else ""
        left = [f"about {text}" for text in self._left(number)]
        text = ", ".join([*_texts(known), f"{self._recent[-1]:.1f} s", *left])
        _log.info("round %d%s, stage %s: %s", number + 1, of, stage, text)
        self._logged = self._then

    def _left(self, number: int) -> list[str]:
        """Return the time left after a round in words, where the number of rounds is known."""
        seconds = self._seconds_left(number)
        return [] if seconds is None else [f"{seconds:.0f} s left"]

    def _seconds_left(self, number: int) -> float | None:
        if not self._rounds:
            return None
        return round(fmean(self._recent) * (self._rounds - number - 1), 1)

    def _lap(self, stage: str) -> dict[str, float]:
        """Return time and bytes since the last round, and remember the time for rounds like it."""
        now, before = time.monotonic(), (self._then, *self._sent)
        self._then, self._sent = now, (self._folder.bytes_down, self._folder.bytes_up)
        seconds, down, up = (b - a for a, b in zip(before, (now, *self._sent), strict=True))
        if stage != self._stage:
            self._stage = stage
            self._recent.clear()
        self._recent.append(seconds)
        return {"seconds": round(seconds, 4), "bytes_down": down, "bytes_up": up}


def _bar(rounds: int | None, done: int) -> Any:
    """Return a bar that is shown where standard error is a terminal and its end is known."""
    return tqdm(
        total=rounds,
        initial=done,
        disable=None if rounds else True,
        dynamic_ncols=True,
        bar_format="{n_fmt}/{total_fmt} |{bar}| {desc}",
    )


def _event_file(folder: RunFolder, done: int) -> Any:
    """Return a writer of a new event file, which replaces others' reports of rounds not done."""
    from tensorboardX import SummaryWriter  # it imports PyTorch

    return SummaryWriter(
        str(folder.path / TENSORBOARD_FOLDER),
        purge_step=done + 1,
        flush_secs=1,  # what a killed run may lose
        filename_suffix=f".{done}",  # two files of one second would overwrite each other
    )


def _texts(facts: Mapping[str, float]) -> list[str]:
    return [f"{name.replace('_', ' ')} {value:.3g}" for name, value in facts.items()]
