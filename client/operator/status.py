"""What a hospital's operator sees: node, log of what left, quotas, privacy budget, certificate."""

import json
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from client.egress.log_files import EgressLog
from client.egress.log_files import Part as LogPart
from client.egress.quota import REFUSED, Sums
from client.log_file import Line
from client.operator.site_rules import Operator, Rules
from client.privacy.ledger import FILE as LEDGER_FILE
from client.privacy.ledger import Ledger
from client.privacy.paid_step import FOLDER as LEDGER_FOLDER
from common.errors import DataError, described
from common.operation.status import (
    Code,
    Level,
    Metric,
    Notice,
    Part,
    Status,
    certificates,
    metrics_by,
)
from common.site_folder import AUTHORITY
from common.site_folder import FILE as SITE_FILE

_SHOWN = 3
"""Last messages that are told of."""

_NEARLY = 0.9
"""Share of a quota or budget from which it is nearly used up."""

_PATIENCE = 2.0
"""Seconds that the node may take to answer at its port."""


class Used(NamedTuple):
    """How much of a limit is used; a limit of 0 is none."""

    used: float
    limit: float

    def notices(self, code: Code, what: str) -> list[Notice]:
        """Warn if it is nearly used up."""
        if not self.limit or self.used < _NEARLY * self.limit:
            return []
        state = "used up" if self.used >= self.limit else "nearly used up"
        return [Notice(Level.WARNING, code, f"{what} {self} is {state}; see site.toml")]

    def __str__(self) -> str:
        return f"{self.used:.4g} of {self.limit:g}" if self.limit else f"{self.used:.4g}"


def site_status(folder: Path, now: datetime) -> Status:
    """Look at a hospital's folder; a message waits for it only while its log is being read.

    Raises
    ------
    ConfigError
        If the operator's file is wrong.
    """
    operator = Operator.read(folder / SITE_FILE)
    parts = [
        _node(operator),
        *_messages(operator, now),
        _budget(operator),
        certificates([folder / AUTHORITY], now),
    ]
    return Status("site", operator.name, now, parts)


def _node(operator: Operator) -> Part:
    """Tell whether the node listens where it does for its own processes."""
    try:
        socket.create_connection(("127.0.0.1", operator.port), _PATIENCE).close()
        answers = True
    except OSError:
        answers = False
    says = f"no node answers at port {operator.port}; start run.sh, and see what it says"
    return Part(
        {"node": {"port": operator.port, "answers": answers}},
        {"node": f"{'answers' if answers else 'does not answer'} at port {operator.port}"},
        [Metric("node_up", "whether the node answers", answers)],
        [] if answers else [Notice(Level.ALARM, Code.NODE, says)],
    )


def _messages(operator: Operator, now: datetime) -> Iterator[Part]:
    """Verify the log of all that left, and tell what it holds."""
    try:
        parts, sums = _verified_log(operator)
    except DataError as error:
        alarm = Notice(Level.ALARM, Code.LOG, described(error))
        facts = {"log": {"verified": False}, "quotas": None}
        yield Part(facts, {"log": "not verified"}, [_verified(False)], [alarm])
        return
    yield _of_log(parts, sums, _day(now))
    yield _of_quotas(operator.rules, sums, _day(now))


def _verified_log(operator: Operator) -> tuple[list[LogPart], Sums]:
    """Return the files of the log, and what all its lines add up to."""
    log = EgressLog.of(operator)
    if not (log.path.exists() or log.seal.exists()):  # to open it would begin it
        return [], Sums()
    parts = list(log.files())
    with log.opened() as sums:
        return parts, sums


def _day(now: datetime) -> str:
    return (now - timedelta(days=1)).isoformat(timespec="seconds")


def _verified(value: bool) -> Metric:
    return Metric("log_verified", "whether the log of what left is what was written", value)


def _of_log(parts: list[LogPart], sums: Sums, since: str) -> Part:
    lines = [line for part in parts for line in part.lines or ()]
    missing = [part.path.name for part in parts if part.lines is None]
    count = parts[-1].end.lines if parts else 0
    reasons = dict(
        Counter(each[REFUSED] for each in lines if each["time"] > since and each[REFUSED])
    )
    keys = ("time", "run", "round", "question", REFUSED)
    last = [{key: line[key] for key in keys} for line in lines[-_SHOWN:]]
    facts = {"messages": count, "bytes": sums.bytes, "last": last, "refused_today": reasons}
    facts["missing"] = missing
    refused = f"{sum(reasons.values())} refused in 24 hours"
    gone = f"; not here: {', '.join(missing)}" if missing else ""
    words = {"log": f"verified: {count} messages, {sums.bytes} bytes, {refused}{gone}"}
    words |= {f"last {number}": _in_words(line) for number, line in enumerate(reversed(last), 1)}
    metrics = [
        _verified(True),
        Metric("messages", "messages that left", count),
        Metric("bytes", "bytes that left", sums.bytes),
        *metrics_by("refused_today", "refusals in 24 hours", "reason", reasons),
    ]
    notices = [
        Notice(Level.WARNING, Code.REFUSED, f"{times} in 24 hours: {why}")
        for why, times in reasons.items()
    ]
    return Part({"log": {"verified": True, **facts}}, words, metrics, notices)


def _in_words(line: Line) -> str:
    what = f"refused: {line[REFUSED]}" if line[REFUSED] else "answered"
    return f"{line['time']} run {line['run']} round {line['round']} {line['question']} {what}"


def _of_quotas(rules: Rules, sums: Sums, since: str) -> Part:
    """Count as the guard does."""
    sent, size = sums.since(since)
    quotas = {
        "rounds_a_day": Used(sent, rules.rounds_a_day),
        "megabytes_a_day": Used(round(size / 1e6, 3), rules.megabytes_a_day),
        "rounds": Used(sums.rounds, rules.rounds),
        "questions": Used(sums.questions, rules.questions),
    }
    return Part(
        {"quotas": {name: quota._asdict() for name, quota in quotas.items()}},
        {"quotas": ", ".join(f"{name} {quota}" for name, quota in quotas.items())},
        [
            *metrics_by(
                "quota_used", "used of a quota", "quota", {n: q.used for n, q in quotas.items()}
            ),
            *metrics_by(
                "quota_limit", "a quota, 0: none", "quota", {n: q.limit for n, q in quotas.items()}
            ),
        ],
        [each for name, quota in quotas.items() for each in quota.notices(Code.QUOTA, name)],
    )


def _budget(operator: Operator) -> Part:
    """Verify the privacy ledger, and tell what is spent of it."""
    rules, folder = operator.rules, operator.state / LEDGER_FOLDER
    epsilon, unit, delta = Used(0.0, rules.epsilon), str(rules.unit), rules.delta
    try:
        if (folder / LEDGER_FILE).exists() or _sealed(folder / LEDGER_FILE, operator.seals):
            account = Ledger(folder, operator.seals).account()
            epsilon, unit, delta = Used(account.spent, account.limit), account.unit, account.delta
    except DataError as error:
        alarm = Notice(Level.ALARM, Code.LEDGER, described(error))
        verified = Metric("ledger_verified", _LEDGER, False)
        return Part({"budget": None}, {"budget": "not verified"}, [verified], [alarm])
    if not epsilon.limit:
        return Part({"budget": None}, {"budget": "none; no private run is allowed"}, [], [])
    left = max(0.0, epsilon.limit - epsilon.used)
    facts = {"spent": epsilon.used, "limit": epsilon.limit, "left": left}
    return Part(
        {"budget": {**facts, "unit": unit, "delta": delta}},
        {"budget": f"epsilon {epsilon} spent, {left:.4g} left, by {unit}, delta {delta:g}"},
        [
            Metric("ledger_verified", _LEDGER, True),
            Metric("epsilon_spent", "epsilon that is spent", epsilon.used),
            Metric("epsilon_limit", "epsilon that all runs may spend", epsilon.limit),
        ],
        epsilon.notices(Code.BUDGET, "epsilon"),
    )


_LEDGER = "whether the privacy ledger is what was written"


def _sealed(ledger: Path, seals: Path) -> bool:
    """Tell whether a seal knows of a ledger, which then must be there."""
    for seal in seals.expanduser().glob("privacy-*.json"):
        with suppress(OSError, ValueError, LookupError, TypeError):
            if json.loads(seal.read_bytes())["path"] == str(ledger.resolve()):
                return True
    return False
