"""What ``fedderm status`` says of a coordinator or a hospital: a page, an object, an exit code."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum, StrEnum
from pathlib import Path
from typing import NamedTuple

from common.errors import ConfigError, reason
from common.json_types import JsonObject, plain
from common.storage.reading import read_bytes
from common.text import printable
from common.wire.certificates import NOTICE_DAYS, days_left

SCHEMA = 1
"""Version of the keys in :meth:`Status.as_json`."""


class Level(IntEnum):
    """How much a person is needed; the value is the exit code."""

    OK = 0
    WARNING = 3
    ALARM = 4


class Code(StrEnum):
    """What a notice is about: the closed list for whoever acts on it by a program."""

    SERVER = "server"
    AWAY = "away"
    LEFT_OUT = "left_out"
    QUORUM = "quorum"
    STOPPED = "stopped"
    CERTIFICATE = "certificate"
    NODE = "node"
    REFUSED = "refused"
    QUOTA = "quota"
    BUDGET = "budget"
    LOG = "log"
    LEDGER = "ledger"


@dataclass(frozen=True)
class Notice:
    """Something that a person should know."""

    level: Level
    code: Code
    says: str


@dataclass(frozen=True)
class Metric:
    """One number for Prometheus; those of one name differ in labels."""

    name: str
    help: str
    value: float
    labels: Mapping[str, str] = field(default_factory=dict)


class Part(NamedTuple):
    """What was found out about one subject.

    Attributes
    ----------
    facts : its keys in the JSON object.
    lines : the same in words, by subject.
    metrics : the same as numbers.
    notices : what a person should know.
    """

    facts: JsonObject
    lines: Mapping[str, str]
    metrics: Sequence[Metric]
    notices: Sequence[Notice]


@dataclass(frozen=True)
class Status:
    """What was seen in one look.

    Attributes
    ----------
    role : "coordinator" or "site".
    name : the site's name; of a coordinator its folder.
    time : when, in UTC.
    parts : what was found out, by subject.
    """

    role: str
    name: str
    time: datetime
    parts: Sequence[Part]

    @property
    def notices(self) -> list[Notice]:
        """What a person should know."""
        return [notice for part in self.parts for notice in part.notices]

    @property
    def level(self) -> Level:
        """The highest level of a notice."""
        return max((notice.level for notice in self.notices), default=Level.OK)

    def text(self) -> Iterator[str]:
        """Yield the lines of a short page."""
        yield printable(f"{self.role} {self.name}: {self.level.name}")
        for part in self.parts:
            for subject, says in part.lines.items():
                yield printable(f"{subject:12} {says}")
        for notice in self.notices:
            yield printable(f"{notice.level.name:12} {notice.code}: {notice.says}")

    def as_json(self) -> JsonObject:
        """Return all as one object, whose keys are a closed set (``docs/deployment.md``)."""
        notices = [
            {"level": notice.level.name.lower(), "code": notice.code.value, "says": notice.says}
            for notice in self.notices
        ]
        values: JsonObject = {
            "schema": SCHEMA,
            "role": self.role,
            "name": self.name,
            "time": self.time.isoformat(timespec="seconds"),
            "level": self.level.name.lower(),
            "notices": notices,
        }
        for part in self.parts:
            values |= part.facts
        return {key: plain(value) for key, value in values.items()}

    def metrics(self) -> Iterator[Metric]:
        """Yield the numbers, and the level of each kind of notice."""
        for part in self.parts:
            yield from part.metrics
        levels: dict[str, float] = dict.fromkeys(Code, Level.OK)
        for notice in self.notices:
            levels[notice.code] = max(levels[notice.code], notice.level)
        of = f"level, 0: nothing to do, {Level.WARNING}: warning, {Level.ALARM}: alarm"
        yield Metric("status", f"highest {of}", self.level, {"role": self.role})
        yield from metrics_by("notice", of, "code", levels)


def metrics_by(name: str, help_text: str, label: str, values: Mapping[str, float]) -> list[Metric]:
    """Return a metric for each value, labelled with its key."""
    return [Metric(name, help_text, value, {label: key}) for key, value in values.items()]


def certificates(files: Sequence[Path], now: datetime) -> Part:
    """Tell how many days certificates have left at a time ``now``."""
    days: dict[str, float | None] = {}
    notices: list[Notice] = []
    for file in files:
        try:
            left = days[file.name] = round(days_left(read_bytes(file), now), 2)
        except (OSError, ConfigError) as error:
            days[file.name] = None
            says = f"{file} cannot be read ({reason(error)}); restore it"
            notices.append(Notice(Level.ALARM, Code.CERTIFICATE, says))
        else:
            notices += _of_certificate(file, left)
    words = [f"{name} {'?' if left is None else f'{left:.0f}'} days" for name, left in days.items()]
    known = {name: left for name, left in days.items() if left is not None}
    metrics = metrics_by("certificate_days", "days until a certificate ends", "file", known)
    return Part({"certificates": days}, {"certificates": ", ".join(words)}, metrics, notices)


def _of_certificate(file: Path, left: float) -> list[Notice]:
    if left < 0:
        says = f"{file} ended {-left:.0f} days ago; the coordinator must renew it"
        return [Notice(Level.ALARM, Code.CERTIFICATE, says)]
    if left < NOTICE_DAYS:
        says = f"{file} ends in {left:.0f} days; the coordinator must renew it before"
        return [Notice(Level.WARNING, Code.CERTIFICATE, says)]
    return []
