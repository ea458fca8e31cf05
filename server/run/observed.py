"""A run as whoever only watches it sees it: its folder is read, and never written or locked."""

import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self

from common.json_types import JsonObject
from common.storage.reading import read_text
from common.storage.whole_files import in_use
from server.run.folder import CONFIG_FILE, MODEL_FILE, ROUNDS_FILE, STATISTICS_FILE
from server.run.progress import TRAINING_FILE

_CLOSE, _JOIN = "close", "join"


@dataclass(frozen=True)
class ObservedRun:
    """What the files of a run say; any of them may be missing or half written.

    Attributes
    ----------
    folder : where it lies.
    state : whether a process writes it, it has its result, or neither.
    method : its method, "" where the configuration cannot be read.
    quorum : sites that a model needs, 0 where that is not known.
    rounds : questions that were asked.
    question : the last of them, "" before the first.
    seconds_since : seconds since it was answered; None before the first.
    trained, planned : rounds of training that are done and that there will be; None where the
        method does not know.
    seconds_left : about how long they will take; None where that is not known.
    members : sites that are still in it.
    left_out : why others are out, by site or node.
    refusals : questions that a site did not answer, by site or node.
    bytes_down, bytes_up : sent to the sites and by them.
    """

    folder: str
    state: Literal["running", "finished", "stopped"]
    method: str = ""
    quorum: int = 0
    rounds: int = 0
    question: str = ""
    seconds_since: float | None = None
    trained: int | None = None
    planned: int | None = None
    seconds_left: float | None = None
    members: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    refusals: dict[str, int] = field(default_factory=dict)
    bytes_down: int = 0
    bytes_up: int = 0

    @classmethod
    def read(cls, folder: Path, now: float | None = None) -> Self | None:
        """Read a run's folder; None where there is no run yet.

        Parameters
        ----------
        now : seconds since 1970; None for the present.
        """
        running = in_use(folder)
        if not running and not (folder / CONFIG_FILE).is_file():
            return None
        results = (folder / name for name in (MODEL_FILE, STATISTICS_FILE))
        finished = any(file.is_file() for file in results)
        config = _object(folder / CONFIG_FILE)
        lines = list(_lines(folder / ROUNDS_FILE))
        members, left_out = _members(lines)
        age = _age(folder / ROUNDS_FILE, now) if lines else None
        return cls(
            folder=str(folder),
            state="running" if running else "finished" if finished else "stopped",
            method=str(config.get("method", "")),
            quorum=int(config.get("quorum", 0)),
            rounds=len(lines),
            question=str(lines[-1]["question"]) if lines else "",
            seconds_since=age,
            **_training(folder, running, now),
            members=members,
            left_out=left_out,
            refusals=dict(Counter(site for line in lines for site in line["faults"])),
            bytes_down=sum(line["bytes_down"] for line in lines),
            bytes_up=sum(line["bytes_up"] for line in lines),
        )

    @property
    def below_quorum(self) -> bool:
        """Whether fewer sites are in it than a model needs."""
        return self.rounds > 0 and len(self.members) < self.quorum


def _members(lines: list[JsonObject]) -> tuple[list[str], dict[str, str]]:
    """Return the sites that are in a run, and why others are not, since it was last started."""
    members: set[str] = set()
    left_out: dict[str, str] = {}
    for line in lines:
        if line["question"] == _CLOSE:  # those that are out are asked to forget, too
            continue
        # Only those that are out are asked to come back; a run that starts asks all.
        if line["question"] == _JOIN and not {*line["answered"], *line["faults"]} <= {*left_out}:
            members, left_out = set(), {}
        members |= set(line["answered"])
        left_out = {site: why for site, why in left_out.items() if site not in line["answered"]}
        left_out |= line["faults"]
    return sorted(members - left_out.keys()), left_out


def _training(folder: Path, running: bool, now: float | None) -> JsonObject:
    """Return the rounds of training, and how long the others will take."""
    *_, last = [{}, *_lines(folder / TRAINING_FILE)]
    left = last.get("seconds_left")
    if left is not None:
        left = max(0.0, round(left - _age(folder / TRAINING_FILE, now), 1)) if running else None
    return {"trained": last.get("round"), "planned": last.get("rounds"), "seconds_left": left}


def _age(file: Path, now: float | None) -> float:
    return max(0.0, round((time.time() if now is None else now) - file.stat().st_mtime, 1))


def _lines(file: Path) -> Iterator[JsonObject]:
    """Yield the lines that are whole; whoever goes on with the run deals with the others."""
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    for line in text.splitlines():
        try:
            fields = json.loads(line)
        except ValueError:
            continue
        if isinstance(fields, dict) and "round" in fields:
            yield fields


def _object(file: Path) -> JsonObject:
    try:
        fields = json.loads(read_text(file))
    except (OSError, ValueError):
        return {}
    return fields if isinstance(fields, dict) else {}
