"""Sites and a coordinator of secure sums over plain vectors, without images or Flower's grid."""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import RecordDict

from client.egress.activity_gate import Gated
from client.secure.identity import Identity
from client.secure.session import Masked, Session
from common.errors import QuorumError, RefusalError
from common.statistics.sums import Sums
from common.wire.messages import pack, unpack_values
from common.wire.secure_sums import KEY, PEERS, UNMASK, SumRound, question_digest
from server.federation.secure import SecureSums

RUN = "0a" * 8
QUESTION = pack({}, {"question": "x"})


@dataclass(frozen=True)
class Pair(Sums):
    """Real numbers and whole ones."""

    real: np.ndarray
    whole: np.ndarray

    @classmethod
    def zero(cls, size: int) -> "Pair":
        return cls(np.zeros(size), np.zeros(size, np.int64))


def names(count: int) -> list[str]:
    return [f"site_{number:02}" for number in range(count)]


class Site:
    """A site that answers with what it is given; each call is a process of its own."""

    def __init__(self, folder: Path, name: str, run: str = RUN, least: int = 0) -> None:
        self.name = name
        self._open: Callable[[], Session] = lambda: Session(
            folder / name, folder / "seals", name, run, least
        )
        (folder / name).mkdir(parents=True, exist_ok=True)
        self.identity = Identity.begun(folder / name)

    def key(self) -> bytes:
        with self._open().locked() as session:
            return bytes(session.signed_key(self.identity)["key"])

    def agree(self, keys: Mapping[str, bytes]) -> dict[str, Any]:
        with self._open().locked() as session:
            return dict(session.agree(keys))

    def mask(self, asked: SumRound, sums: Sums | Gated, question: RecordDict = QUESTION) -> Masked:
        with self._open().locked() as session:
            session.check(asked)
            gated = sums if isinstance(sums, Gated) else Gated(sums)
            return session.mask(asked, question_digest(question), gated)

    def unmask(self, number: int, envelopes: list[bytes]) -> dict[str, Any]:
        with self._open().locked() as session:
            return dict(session.unmask(number, envelopes))


@dataclass
class Crowd:
    """Sites that some rounds lose, by the number of the round and the phase.

    Attributes
    ----------
    shares : what each site answers.
    silent : sites that do not give their masked share in a round.
    late : sites that do not open it.
    """

    sites: dict[str, Site]
    shares: dict[str, Sums | Gated]
    silent: dict[int, set[str]] = field(default_factory=dict)
    late: dict[int, set[str]] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    reasons: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, folder: Path, shares: Mapping[str, Sums | Gated], least: int = 0) -> "Crowd":
        return cls({name: Site(folder, name, least=least) for name in shares}, dict(shares))

    def begun(self) -> SecureSums:
        sums = SecureSums(self.exchange, RUN)
        sums.agree(sorted(self.sites.keys() - self.gone))
        return sums

    def exchange(
        self,
        question: str,
        contents: Mapping[str, RecordDict],
        read: Callable[[str, RecordDict], Any],
    ) -> Iterator[tuple[str, Any]]:
        for name, content in contents.items():
            try:
                reply = self._reply(name, question, content)
            except RefusalError as error:
                self.reasons.append(str(error))
                reply = None
            if reply is None:
                self.gone.add(name)
            else:
                yield name, read(name, reply)
        if len(self.gone) == len(self.sites):
            raise QuorumError("; ".join(self.reasons))

    def _reply(self, name: str, question: str, content: RecordDict) -> RecordDict | None:
        site, values = self.sites[name], unpack_values(content)
        if question == KEY:
            return pack({}, {"key": site.key(), "signature": b""})
        if question == PEERS:
            return pack({}, site.agree(dict(zip(values["names"], values["keys"], strict=True))))
        if question == UNMASK:
            if name in self.late.get(values["round"], ()):
                return None
            return pack({}, site.unmask(values["round"], values["envelopes"]))
        asked = SumRound.read(content)
        if name in self.silent.get(asked.number, ()):
            return None
        masked = site.mask(asked, self.shares[name], content)
        return pack(
            {"masked": masked.vector.view(np.int64)},
            {"envelopes": masked.envelopes, "seal": masked.seal},
        )


class Attacker:
    """A coordinator that keeps all it sees, and asks each site whatever it likes."""

    def __init__(self, folder: Path, count: int, least: int = 0) -> None:
        self.names = names(count)
        self.sites = {name: Site(folder, name, least=least) for name in self.names}
        self.keys = {name: site.key() for name, site in self.sites.items()}
        for site in self.sites.values():
            site.agree(self.keys)

    def ask(
        self,
        number: int,
        members: Collection[str],
        share: Callable[[str], Sums],
        question: RecordDict = QUESTION,
    ) -> dict[str, Masked]:
        asked = SumRound(RUN, number, list(members))
        return {name: self.sites[name].mask(asked, share(name), question) for name in members}

    def open(self, number: int, shares: Mapping[str, Masked]) -> dict[str, dict[str, Any]]:
        return {
            name: self.sites[name].unmask(number, [s.envelopes[place] for s in shares.values()])
            for place, name in enumerate(shares)
        }
