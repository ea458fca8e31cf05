"""What a privacy ledger says: whose it is, its limit, what was reserved of it and what has left."""

import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Self

from client.log_file import Line
from common.privacy.accounting import SampledGaussian, epsilon

SCHEMA = 1


@dataclass(frozen=True)
class Entry:
    """A line of the ledger, after the first.

    Attributes
    ----------
    number : the number of the line, from 2.
    time : when it was written, in UTC.
    what : the purpose that was given.
    cost : what it costs; None for a change of the limit.
    key : the name of the release, None if it has none.
    """

    number: int
    time: str
    what: str
    cost: SampledGaussian | None
    key: str | None = None


@dataclass
class Account:
    """A ledger as it was read: whose it is, its limit, its entries and what has left.

    Its ``id`` is random: it may leave the site, unlike the data's fingerprint. ``answered`` has the
    last step of each run that was answered, by the run's name.
    """

    id: str
    fingerprint: str
    unit: str
    delta: float
    limit: float
    entries: list[Entry] = field(default_factory=list)
    settled: set[int] = field(default_factory=set)
    answered: dict[str, int] = field(default_factory=dict)

    @classmethod
    def read(cls, lines: Iterable[Line]) -> Self:
        """Read the lines of a ledger.

        Raises
        ------
        KeyError, TypeError, ValueError, IndexError, ConfigError
            If they are another version's.
        """
        header, *rest = lines
        if header["schema"] != SCHEMA:
            raise ValueError(f"schema {header['schema']}, not {SCHEMA}")
        account = cls(*(header[key] for key in ("id", "fingerprint", "unit", "delta", "epsilon")))
        for number, line in enumerate(rest, 2):
            account.take(number, line)
        return account

    def take(self, number: int, line: Line) -> None:
        """Take a line of the ledger, after the first."""
        match line["kind"]:
            case "settle":
                self.settled.add(line["reservation"])
            case "reserve":
                cost = SampledGaussian(line["noise"], line["rate"], line["steps"])
                entry = Entry(number, line["time"], line["what"], cost, line["key"])
                self.entries.append(entry)
            case "answer":
                self.answered[line["run"]] = line["step"]
            case "data":
                self.fingerprint = line["fingerprint"]
            case "delta":
                self.delta = line["delta"]
            case "limit":
                self.limit = line["epsilon"]
                self.entries.append(Entry(number, line["time"], line["what"], None))
            case other:
                raise ValueError(f"entry '{other}'")

    @property
    def history(self) -> list[SampledGaussian]:
        """What was reserved, settled or not."""
        return [entry.cost for entry in self.entries if entry.cost is not None]

    def number_of(self, key: str) -> int | None:
        """Return the number of the entry that was reserved under ``key``; None if none was."""
        return next((entry.number for entry in self.entries if entry.key == key), None)

    @property
    def spent(self) -> float:
        """Epsilon of all that was reserved."""
        return epsilon(self.history, self.delta)

    @property
    def left(self) -> float:
        """What is left of the limit; epsilons of several plans do not add up to it exactly."""
        return max(0.0, self.limit - self.spent)

    def lines(self) -> Iterator[str]:
        """Describe the ledger for its reader."""
        yield f"data {self.fingerprint[:16]}, privacy unit {self.unit}, delta {self.delta:g}"
        for entry in self.entries:
            line = f"{entry.number:6}  {entry.time}  {entry.what}"
            if cost := entry.cost:
                state = "sent" if entry.number in self.settled else "reserved, counts as spent"
                line += f"  noise {cost.noise:g}  rate {cost.rate:g}  steps {cost.steps}  ({state})"
            yield line
        yield f"epsilon {self.spent:.4g} is spent of {self.limit:g}; {self.left:.4g} is left"


def first_line(time: str, fingerprint: str, unit: str, epsilon: float, delta: float) -> Line:
    """Return the line with which a ledger begins."""
    about = {"fingerprint": fingerprint, "unit": unit, "epsilon": epsilon, "delta": delta}
    return {"schema": SCHEMA, "id": secrets.token_hex(8), "time": time, **about}
