"""The coordinator's part in secure sums: it carries keys and envelopes and removes masks.

A sum is asked for in two messages: the masked shares, and what opens them. A site that is missing
among the shares is left out and the others are asked again, under new masks; the masks of the
first attempt stay on for ever, since sites open the last round only. A site that is missing
afterwards is in the sum: the others hold the parts of its seed.
"""

import hmac
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
from flwr.app import RecordDict

from common.errors import QuorumError, ReplyError
from common.statistics.sums import S
from common.wire.fixed_point import Ring, decode, length, schema
from common.wire.messages import Value, unpack_arrays, unpack_values
from common.wire.secure_sums import (
    KEY,
    LEAST_SITES,
    PEERS,
    UNMASK,
    SumRound,
    add_mask,
    combine,
    context,
    question_digest,
    seal,
    self_mask,
)
from server.federation.question import LossPolicy, Question, content_of

T = TypeVar("T")


class Exchange(Protocol):
    """Asks sites, each its own question, and yields what could be read of their answers."""

    def __call__(
        self,
        question: str,
        contents: Mapping[str, RecordDict],
        read: Callable[[str, RecordDict], T],
    ) -> Iterator[tuple[str, T]]:
        """Yield names and answers; a site of which nothing could be read is out afterwards."""


class SecureSums:
    """Secure sums over the sites of a run.

    Parameters
    ----------
    exchange : speaks to the sites.
    run : name of the run, the same if it is started again.

    Attributes
    ----------
    members : names of the sites that were in the last sum, or shared keys.
    opened : whether a sum was opened in this run.
    """

    def __init__(self, exchange: Exchange, run: str) -> None:
        self._exchange, self._run = exchange, run
        self._keys: dict[str, bytes] = {}
        self._number, self._threshold = 0, LEAST_SITES
        self.members: list[str] = []
        self.opened = False

    def agree(self, sites: list[str]) -> None:
        """Carry the sites' keys to each other.

        Raises
        ------
        QuorumError
            If there are too few sites.
        """
        _check_enough(sites)
        content = content_of(KEY, {"run": self._run})
        signed = dict(self._exchange(KEY, dict.fromkeys(sites, content), _read_key))
        _check_enough(signed)
        names = sorted(signed)
        values: dict[str, Value] = {
            "run": self._run,
            "names": names,
            "keys": [signed[name][0] for name in names],
            "signatures": [signed[name][1] for name in names],
        }
        content = content_of(PEERS, values)
        states = dict(self._exchange(PEERS, dict.fromkeys(names, content), _read_state))
        self._keys = {name: key for name, (key, _) in signed.items()}
        self._number = max(state.number for state in states.values())
        self._threshold = max(state.threshold for state in states.values())
        self.opened = self._number > 0
        known = set.intersection(*(state.members for state in states.values()))
        self.members = sorted(known & states.keys())

    def sum(self, question: Question[S], on_loss: LossPolicy) -> tuple[S, list[str]]:
        """Return the sum over the sites and their names, none if sites are missing.

        Parameters
        ----------
        on_loss : where sites do not answer, CONTINUE asks the others again, RESTART does not.

        Raises
        ------
        QuorumError
            If too few sites are left, or too few opened the sum.
        ReplyError
            If the sum is none that records can give.
        """
        content, zero = question.content(), question.zero
        while True:
            sum_round = self._begin_round(content)
            total = np.zeros(length(zero), np.uint64)
            shares = self._add_shares(question.name, sum_round.members, content, total)
            if len(shares) == len(sum_round.members):
                break
            self.members = sorted(shares)
            if on_loss is LossPolicy.RESTART:
                return zero, []
        keys = [self._keys[name] for name in sum_round.members]
        bound_to = context(sum_round, keys, question_digest(content), schema(zero, len(keys)))
        self._open(sum_round, shares, bound_to, total)
        return decode(total, zero, len(keys)), sum_round.members

    def _begin_round(self, content: RecordDict) -> SumRound:
        """Begin a round over the sites that are left, and put it into the question's content."""
        if len(self.members) < self._threshold:
            raise QuorumError(
                f"{len(self.members)} sites are left for secure sums, {self._threshold} must be in "
                "each: sums over fewer of the sites that began the run could be subtracted"
            )
        self._number += 1
        sum_round = SumRound(self._run, self._number, self.members)
        sum_round.put_into(content)
        return sum_round

    def _add_shares(
        self, question: str, members: list[str], content: RecordDict, total: Ring
    ) -> dict[str, "_Share"]:
        """Ask for masked shares and add them to a total, in place; return what else came."""
        shares: dict[str, _Share] = {}
        reader = _ShareReader(len(total), len(members))
        for site, share in self._exchange(question, dict.fromkeys(members, content), reader):
            total += share.vector
            shares[site] = share._replace(vector=total[:0])
        return shares

    def _open(
        self, sum_round: SumRound, shares: Mapping[str, "_Share"], bound_to: bytes, total: Ring
    ) -> None:
        """Take all masks off a total of masked shares, in place."""
        members = sum_round.members
        contents = {
            reader: content_of(
                UNMASK,
                {
                    "run": sum_round.run,
                    "round": sum_round.number,
                    "envelopes": [shares[name].envelopes[place] for name in members],
                },
            )
            for place, reader in enumerate(members)
        }
        opened = dict(self._exchange(UNMASK, contents, _KeysReader(len(members))))
        self.members = [name for name in members if name in opened]
        if len(opened) < self._threshold:
            raise QuorumError(
                f"{len(opened)} of {len(members)} sites opened round {sum_round.number}, "
                f"{self._threshold} must: it stays closed"
            )
        places = {name: place for place, name in enumerate(members)}
        for name, place in places.items():
            parts = {places[o]: keys.parts[place] for o, keys in opened.items()}
            own = opened[name].seed if name in opened else b""
            seed = _checked_seed(own, parts, shares[name].seal, bound_to, name)
            add_mask(total, self_mask(seed, bound_to), -1)
        self.opened = True


def _check_enough(sites: Collection[str]) -> None:
    if len(sites) < LEAST_SITES:
        raise QuorumError(
            f"secure sums need {LEAST_SITES} sites or more, and there are {len(sites)}"
        )


class _Share(NamedTuple):
    vector: Ring
    envelopes: list[bytes]
    seal: bytes


class _State(NamedTuple):
    number: int
    members: set[str]
    threshold: int


class _Keys(NamedTuple):
    seed: bytes
    parts: list[bytes]


class _ShareReader:
    """Reads masked shares of ``length`` values, with an envelope for each of ``sites``."""

    def __init__(self, length: int, sites: int) -> None:
        self._length, self._sites = length, sites

    def __call__(self, site: str, reply: RecordDict) -> _Share:
        arrays, values = unpack_arrays(reply), unpack_values(reply)
        masked = arrays.get("masked")
        if masked is None or masked.dtype != np.int64 or masked.shape != (self._length,):
            raise ReplyError(f"its share is no vector of {self._length} masked values")
        envelopes = _bytes(values.get("envelopes"), self._sites)
        return _Share(masked.view(np.uint64), envelopes, _one(values.get("seal")))


class _KeysReader:
    """Reads what opens a sum over ``sites`` sites."""

    def __init__(self, sites: int) -> None:
        self._sites = sites

    def __call__(self, site: str, reply: RecordDict) -> _Keys:
        values = unpack_values(reply)
        return _Keys(_one(values.get("seed")), _bytes(values.get("parts"), self._sites))


def _read_key(site: str, reply: RecordDict) -> tuple[bytes, bytes]:
    values = unpack_values(reply)
    return _one(values.get("key")), _one(values.get("signature"))


def _read_state(site: str, reply: RecordDict) -> _State:
    values = unpack_values(reply)
    number, members, least = (values.get(key) for key in ("round", "members", "threshold"))
    if type(number) is not int or type(least) is not int or not isinstance(members, list):
        raise ReplyError("does not say its state in this run")
    return _State(number, {str(member) for member in members}, least)


def _one(value: Value | None) -> bytes:
    return _bytes([value] if isinstance(value, bytes) else None, 1)[0]


def _bytes(value: Value | None, count: int) -> list[bytes]:
    blobs = [v for v in value if isinstance(v, bytes)] if isinstance(value, list) else []
    if len(blobs) != count:
        raise ReplyError("an answer of a secure sum is in a wrong form")
    return blobs


def _checked_seed(
    own: bytes, parts: Mapping[int, bytes], expected: bytes, bound_to: bytes, name: str
) -> bytes:
    """Return the seed that a site sent, else the one that the others' parts give."""
    if hmac.compare_digest(seal(own, bound_to), expected):
        return own
    try:
        seed = combine(parts)
    except ValueError:  # a part is no number of the field
        seed = b""
    if not hmac.compare_digest(seal(seed, bound_to), expected):
        raise QuorumError(f"the mask of {name} cannot be opened; a site sent a wrong part of it")
    return seed
