"""A coordinator that attacks: it asks a hospital's real app anything, and keeps all that leaves.

Two hospitals whose data differ by one lesion are asked the very same. Whatever words, forms and
refusals leave must be the same too; numbers may differ where a method sends exact sums, and where
they carry noise they do.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from flwr.app import Message

from client.app import app
from client.egress.quota import REFUSED
from client.open_site import SITE
from common.config.run import RunConfig, dependent, flat, settings_of
from common.errors import Reason
from common.methods import METHODS
from common.task import HAM10000
from common.wire.messages import pack, stamp, unpack_arrays, unpack_values
from common.wire.secure_sums import KEY, PEERS, UNMASK, SumRound
from simulations.runtimes.in_process import InProcessGrid
from tests.sites import hospital_file

K = len(HAM10000.codes)
_PREPARES = ("prepare", "linear", "network")
RUN = "0a" * 8
Arrays = dict[str, np.ndarray]
Values = dict[str, Any]


class Left(NamedTuple):
    """What left a hospital in one answer, but for the numbers.

    Attributes
    ----------
    refused : the reason; None for an answer.
    arrays : names, types and shapes.
    values : names, types and lengths.
    """

    refused: str | None
    arrays: tuple[Any, ...]
    values: tuple[Any, ...]


@dataclass(frozen=True)
class Asks:
    """One thing that an attacker asks.

    Attributes
    ----------
    run : Flower's number of the run.
    """

    question: str
    arrays: Arrays = field(default_factory=dict)
    values: Values = field(default_factory=dict)
    run: int = 1

    def __repr__(self) -> str:
        shapes = {name: (a.dtype.str, a.shape) for name, a in self.arrays.items()}
        return f"{self.question}({shapes}, {self.values}, run {self.run})"


@dataclass(frozen=True)
class Attack:
    """What the coordinator configures, what the operator allows, and what is asked in turn."""

    settings: Values
    rules: Values
    asks: Sequence[Asks]


class Hospital:
    """A hospital under attack; its state is in a folder of its own.

    Parameters
    ----------
    data : of this hospital, then of those that are in its secure sums.
    """

    def __init__(
        self, data: Sequence[Path], folder: Path, config: Values, rules: Mapping[str, Any]
    ) -> None:
        peers = folder / "peers"
        weights = config.get("weights") or None
        files = [
            hospital_file(
                each,
                folder / str(place),
                Path(str(config["cache"])),
                weights and Path(str(weights)),
                **{"peers": str(peers), **rules},
            )
            for place, each in enumerate(data)
        ]
        self.names = [each.name for each in data]
        self._peers = peers
        self._grid = InProcessGrid(app, [{SITE: str(file)} for file in files], config)
        self._secure = bool(config["secure"])
        self._number = 0
        self.sums: list[np.ndarray] = []
        if self._secure:
            self._share_keys(folder)

    def ask(self, asks: Asks) -> Left:
        """Ask this hospital; in a secure run the others too, and open what comes of it."""
        if asks.question in _PREPARES:  # no sum, but what the sites' next one is of
            first, *_ = [_left(*self._send(place, asks)) for place in range(len(self.names))]
            return first
        if not self._secure or asks.question in ("join", "close", KEY, PEERS, UNMASK):
            return _left(*self._send(0, asks))
        self._number += 1
        asked = SumRound(RUN, self._number, sorted(self.names))
        answers = [self._send(place, asks, asked) for place in range(len(self.names))]
        left = [_left(*answers[0])]
        if all("envelopes" in values for _, values in answers):
            order = sorted(range(len(self.names)), key=self.names.__getitem__)
            for place in range(len(self.names)):
                own = order.index(place)
                envelopes = [answers[i][1]["envelopes"][own] for i in order]
                values = {"run": RUN, "round": self._number, "envelopes": envelopes}
                left.append(_left(*self._send(place, Asks(UNMASK, values=values, run=asks.run))))
        # What the others say in the end depends on this hospital's counts as its own words do.
        first = left[0]
        refused = next((each.refused for each in left if each.refused), None)
        return first._replace(refused=first.refused or refused)

    def _share_keys(self, folder: Path) -> None:
        from client.secure.identity import Identity

        lines = []
        for place, name in enumerate(self.names):
            public = Identity.begun(folder / str(place) / "state").public().hex()
            lines.append(f"{name}\t{public}")
        self._peers.parent.mkdir(parents=True, exist_ok=True)
        self._peers.write_text("\n".join(lines))
        told = [self._send(i, Asks(KEY, values={"run": RUN}))[1] for i in range(len(self.names))]
        if all("key" in each for each in told):
            values = {
                "run": RUN,
                "names": self.names,
                "keys": [each["key"] for each in told],
                "signatures": [each["signature"] for each in told],
            }
            for place in range(len(self.names)):
                self._send(place, Asks(PEERS, values=values))

    def _send(
        self, place: int, asks: Asks, secure: SumRound | None = None
    ) -> tuple[Arrays, Values]:
        content = stamp(
            pack(copy.deepcopy(asks.arrays), {"question": asks.question, **asks.values})
        )
        if secure:
            secure.put_into(content)
        self._grid._contexts[place + 1].run_id = asks.run
        message = Message(content, place + 1, "query", group_id="7")
        [reply] = self._grid.send_and_receive([message])
        assert not reply.has_error(), reply.error.reason
        return unpack_arrays(reply.content), unpack_values(reply.content)


def _left(arrays: Arrays, values: Values) -> Left:
    refused = values.get(REFUSED)
    if refused is not None:
        Reason(str(refused))  # of the closed list, or an error
    forms = sorted((name, a.dtype.str, a.shape) for name, a in arrays.items())
    about = sorted((n, type(v).__name__, _length(v)) for n, v in values.items() if n != REFUSED)
    return Left(refused, tuple(forms), tuple(about))


def _length(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(map(_length, value))
    # Names of the site, and random ones of its data, are as long as each other.
    return len(value) if isinstance(value, str | bytes) else None


def distinguish(attack: Attack, hospitals: Sequence[Hospital], exact: bool) -> str | None:
    """Return what tells two hospitals apart, if anything does beside numbers.

    Parameters
    ----------
    exact : whether the method sends exact sums. Then a rule on how many lesions must be behind a
        number says so where there are too few, whoever refuses; it ends the attack.
    """
    for number, asks in enumerate(attack.asks):
        a, b = (hospital.ask(asks) for hospital in hospitals)
        if exact and Reason.FEW in (a.refused, b.refused):
            return None
        if a != b:
            return f"answer {number} to {asks}: {a} or {b}"
    return None


def used_by(method: str, settings: Values) -> dict[str, Any]:
    """Return the settings that a method uses."""
    used = settings_of(METHODS[method])
    return {key: value for key, value in settings.items() if key in used}


USUAL = {key: flat(value) for key, value in RunConfig()}


def sent_config(settings: Mapping[str, Any]) -> Values:
    """Return a run's configuration as a coordinator sends it, valid or not."""
    plain = {key: value for key, value in USUAL.items() if key not in settings}
    chosen = {key: str(v) if isinstance(v, Path) else v for key, v in settings.items()}
    # What a method chooses for itself is left to it.
    own = dict.fromkeys(("rounds", "lr", *dependent()), "")
    return {**plain, **own, **chosen}
