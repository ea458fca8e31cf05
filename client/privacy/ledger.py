"""A site's privacy ledger: what may still leave it, over the whole life of its data.

Whatever leaves is reserved here first and counts as spent from then on, for all runs, methods and
coordinators, and even if a crash came before it left. ``client/sealed_log.py`` says how the ledger
is kept, and what it cannot notice.
"""

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, Self

from client.log_file import Line
from client.operator.site_rules import SEALS
from client.privacy.account import Account, Entry, first_line
from client.sealed_log import SealedLog
from common.errors import ConfigError, DataError, Reason, RefusalError
from common.privacy.accounting import SampledGaussian, epsilon, steps_within

FILE = "privacy-ledger.jsonl"
SEAL_FOLDER = "seal"
"""Where the seal of a simulated site is, in the ledger's folder."""


class Release(NamedTuple):
    """What leaves a site, for a purpose, at a cost.

    A key names one release for ever, such as a digest of run and question; None if it has none.
    """

    cost: SampledGaussian
    what: str
    key: str | None = None


class Ledger:
    """The ledger of one data set, in a folder that outlives runs.

    A data set has a single ledger, whatever the unit: of two, neither would know what both spend.

    Parameters
    ----------
    folder : the folder of the ledger, which must exist.
    state : folder of its seal; never restore both from the same backup.

    Raises
    ------
    DataError
        If there is no ledger, or it is not what was written; this holds for every method.
    """

    def __init__(self, folder: Path, state: Path = SEALS) -> None:
        path = folder / FILE
        fingerprints = _fingerprints(path)
        # Where a later one was noted, but a crash came before the seal was named after it.
        seals = [_seal(state, fingerprint) for fingerprint in reversed(fingerprints)]
        seal = next((each for each in seals if each.exists()), seals[0])
        self._log = SealedLog(path, seal)
        self._held: Account | None = None
        self._last_read: Account | None = None

    @classmethod
    def open(
        cls,
        folder: Path,
        fingerprint: str,
        unit: str,
        epsilon: float,
        delta: float,
        state: Path = SEALS,
        former: Callable[[], str] = lambda: "",
    ) -> Self:
        """Return the ledger of a data set; begin it if there is none.

        Parameters
        ----------
        folder : the folder of the ledger.
        fingerprint : digest of the data.
        unit : column whose values are protected, such as "lesion_id".
        epsilon : the limit, which the site's operator sets, never the coordinator.
        delta : the delta at which epsilon is computed.
        state : folder of the seal.
        former : returns the former digest of the same data; the ledger then notes the new one.

        Raises
        ------
        ConfigError
            If the ledger is of other data or another unit, delta or limit, or one is impossible.
        """
        _check(fingerprint, unit, epsilon, delta)
        log = SealedLog(folder / FILE, _seal(state, fingerprint))
        if not _written(folder / FILE):
            with log.opened() as lines:
                if not lines:  # another process may have been faster
                    log.append(first_line(_now(), fingerprint, unit, epsilon, delta))
        ledger = cls(folder, state)
        account = ledger.account()
        if account.fingerprint != fingerprint:
            ledger._rename(former(), fingerprint, _seal(state, fingerprint))
            ledger = cls(folder, state)
            account = ledger.account()
        _compare(account, fingerprint, unit, epsilon, delta, folder)
        return ledger

    def account(self) -> Account:
        """Read the ledger."""
        with self.held() as account:
            return account

    @property
    def last_read(self) -> Account:
        """The ledger as it was when this object last read it; others may have added to it since."""
        return self._last_read or self.account()

    @contextmanager
    def held(self) -> Iterator[Account]:
        """Keep other processes from the ledger, and read it once for all that is done meanwhile.

        The account that this yields is kept up to date with what is added.

        Raises
        ------
        DataError
            If the ledger is not what was written, or another version's.
        """
        if self._held is not None:
            yield self._held
            return
        with self._log.opened() as lines:
            self._held = self._last_read = self._read(lines)
            try:
                yield self._held
            finally:
                self._held = None

    def reserve(self, *releases: Release) -> list[int]:
        """Reserve what releases cost, all or none; return the entries' numbers.

        They are on disk when this returns. What has a key and is reserved again costs nothing more,
        and the caller must then give the identical answer, with the same noise.

        Raises
        ------
        RefusalError
            If they would exceed the limit, and then nothing is reserved; or if a key belongs to
            another release.
        DataError
            If they cannot be written.
        """
        with self.held() as account:
            known = {entry.key: entry for entry in account.entries if entry.key is not None}
            new = [release for release in releases if release.key not in known]
            for release in releases:
                if release.key in known:
                    _check_same(known[release.key], release)
            after = epsilon([*account.history, *(each.cost for each in new)], account.delta)
            if new and not after <= account.limit:  # nor if it is not a number
                raise RefusalError(Reason.BUDGET, _refusal(account, new))
            numbers = {key: entry.number for key, entry in known.items()}
            return [
                numbers[each.key] if each.key in numbers else self._reserve(each)
                for each in releases
            ]

    def _reserve(self, release: Release) -> int:
        cost = asdict(release.cost)
        return self._add({"kind": "reserve", **_about(release.what), **cost, "key": release.key})

    def settle(self, number: int) -> None:
        """Note that what was reserved as ``number`` has left; once is enough.

        Raises
        ------
        RefusalError
            If there is no such reservation.
        """
        with self.held() as account:
            if number not in {entry.number for entry in account.entries if entry.cost}:
                raise RefusalError(Reason.ORDER, f"the ledger has no reservation {number}")
            if number not in account.settled:
                self._add({"kind": "settle", "reservation": number})

    def answer(self, run: str, step: int) -> None:
        """Note that a step of a run is answered; no answer to it is made again.

        Raises
        ------
        RefusalError
            If it, or a later one, was answered before.
        DataError
            If it cannot be written.
        """
        with self.held() as account:
            last = account.answered.get(run, -1)
            if step <= last:
                raise RefusalError(
                    Reason.ORDER, f"step {step} of run {run} is not after {last}, which left"
                )
            self._add({"kind": "answer", "time": _now(), "run": run, "step": step})

    def change_delta(self, delta: float) -> None:
        """Note another delta, at which epsilon is computed from now on, for what is spent too.

        Raises
        ------
        ConfigError
            If it is not between 0 and 1.
        """
        _check_delta(delta)
        with self.held() as account:
            if delta != account.delta:
                self._add({"kind": "delta", "time": _now(), "delta": delta})

    def change_limit(self, epsilon: float) -> None:
        """Note a new limit, higher or lower, which holds from now on.

        Raises
        ------
        ConfigError
            If it is not above 0.
        """
        _check_limit(epsilon)
        with self.held() as account:
            if epsilon != account.limit:
                what = f"limit changed from {account.limit:g} to {epsilon:g}"
                self._add({"kind": "limit", **_about(what), "epsilon": epsilon})

    def _rename(self, before: str, now: str, seal: Path) -> None:
        """Note that the data go by another digest ``now``, if they went by ``before``."""
        with self.held() as account:
            if account.fingerprint == before:
                self._add({"kind": "data", "time": _now(), "fingerprint": now})
                os.replace(self._log.seal, seal)

    def _read(self, lines: list[Line]) -> Account:
        try:
            return Account.read(lines)
        except (KeyError, TypeError, ValueError, IndexError, ConfigError) as error:
            raise DataError(
                f"{self._log.path} is of another version of this program ({error}); use that"
            ) from error

    def _add(self, line: Line) -> int:
        """Add a line to the ledger that is held; return its number."""
        number = self._log.append(line)
        if self._held is not None:
            self._held.take(number, line)
        return number


def _fingerprints(path: Path) -> list[str]:
    """Return the digests that the data of a ledger went by, the present one last."""
    try:
        first, *rest = path.read_bytes().split(b"\n")[:-1]
        digests = [str(json.loads(first)["fingerprint"])]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is no privacy ledger; name the folder of one") from error
    for line in rest:
        with suppress(ValueError, KeyError, TypeError):  # what was edited is found where it is read
            digests.append(str(json.loads(line)["fingerprint"]))
    return digests


def _seal(state: Path, fingerprint: str) -> Path:
    name = hashlib.sha256(fingerprint.encode()).hexdigest()[:32]
    return state.expanduser() / f"privacy-{name}.json"


def _written(path: Path) -> bool:
    """Tell whether the first line is whole."""
    try:
        with path.open("rb") as file:
            return file.readline().endswith(b"\n")
    except FileNotFoundError:
        return False
    except OSError as error:
        raise DataError(f"cannot read {path} ({error.strerror})") from error


def _check(fingerprint: str, unit: str, epsilon: float, delta: float) -> None:
    for name, value in (("fingerprint of the data", fingerprint), ("privacy unit", unit)):
        if not value:
            raise ConfigError(f"the {name} is empty")
    _check_limit(epsilon)
    _check_delta(delta)


def _check_delta(delta: float) -> None:
    if not 0 < delta < 1:
        raise ConfigError(f"delta is {delta}; it must be above 0 and below 1")


def _check_limit(epsilon: float) -> None:
    if not 0 < epsilon < math.inf:
        raise ConfigError(f"the limit of epsilon is {epsilon}; it must be above 0")


def _compare(
    account: Account, fingerprint: str, unit: str, epsilon: float, delta: float, folder: Path
) -> None:
    if account.fingerprint != fingerprint:
        raise ConfigError(
            f"{folder} is the ledger of other data: they were changed since. Put them back, or "
            f"begin a ledger in another folder, with a limit lowered by the {account.spent:.4g} "
            "that is spent on what both have in common"
        )
    if account.unit != unit:
        raise ConfigError(
            f"the ledger in {folder} has the unit {account.unit}, not {unit}; keep {account.unit}"
        )
    for name, old, new in (("limit", account.limit, epsilon), ("delta", account.delta, delta)):
        if old != new:
            raise ConfigError(
                f"the ledger in {folder} has the {name} {old:g}, not {new:g}; note a new one by "
                f"`fedderm privacy ledger {folder} --{name} {new:g}`"
            )


def _check_same(entry: Entry, release: Release) -> None:
    if (entry.cost, entry.what) != (release.cost, release.what):
        raise RefusalError(
            Reason.ORDER,
            f"'{release.what}' has the key of entry {entry.number}, which is another release; "
            "give each release a key of its own",
        )


def _refusal(account: Account, releases: Sequence[Release]) -> str:
    *before, (cost, _, _) = releases
    history = [*account.history, *(each.cost for each in before)]
    most = 0
    if epsilon(history, account.delta) <= account.limit:
        most = steps_within(
            account.limit, account.delta, cost.noise, cost.rate, history, cost.steps
        )
    names = " and ".join(each.what for each in releases)
    return (
        f"the privacy budget does not allow '{names}' ({cost.steps} steps): epsilon "
        f"{account.spent:.4g} of {account.limit:g} is spent, {account.left:.4g} is left; with "
        f"noise multiplier {cost.noise:g} and sampling rate {cost.rate:g} at most {most} steps fit"
    )


def _about(what: str) -> dict[str, str]:
    return {"time": _now(), "what": what}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
