"""A site's part in secure sums: what it masks, what it opens, and what it refuses.

The coordinator carries all messages and is not trusted. A site keeps its key of a run, and the last
round, on its disk and nothing in memory, so that a process may end between any two messages.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from client.egress.activity_gate import Gate, Gated
from client.log_file import Line
from client.sealed_log import SealedLog
from client.secure.identity import Identity
from client.site import Site
from client.state import SECURE_LOG
from common.errors import Reason, RefusalError
from common.wire.fixed_point import Ring, encode, schema
from common.wire.messages import Value
from common.wire.secure_sums import (
    LEAST_SITES,
    SumRound,
    add_mask,
    context,
    derive,
    seal,
    self_mask,
    split,
    statement,
    threshold,
)

_SEED = 16
"""Bytes of a seed: what Shamir's scheme shares, over GF(2^128)."""
_NONCE = bytes(12)  # each key encrypts once


class Masked(NamedTuple):
    """A site's share under masks, and what opens it.

    Attributes
    ----------
    vector : (length,) the masked values.
    envelopes : each member's part of what opens the mask; only that member can read it.
    seal : the digest that shows whether the mask was opened rightly.
    """

    vector: Ring
    envelopes: list[bytes]
    seal: bytes


@dataclass
class _State:
    """The state of a site in a run, which its log adds up to.

    Attributes
    ----------
    secret : its key of this run.
    peers : the public keys of the sites that began the run, itself among them.
    members : names of those of them that were in the last sum that this site has opened.
    number : the last round.
    asked : names of the sites in that round.
    bound_to : what the masks of that round were bound to.
    gate : what the counts over all sites must be before it is opened.
    question : digest of its question.
    opened : whether this site has opened it.
    sums : the members in each sum that this site has opened, by the question's digest.
    """

    secret: str = ""
    peers: dict[str, str] = field(default_factory=dict)
    members: list[str] = field(default_factory=list)
    number: int = 0
    asked: list[str] = field(default_factory=list)
    bound_to: str = ""
    gate: dict[str, int] = field(default_factory=dict)
    question: str = ""
    opened: bool = False
    sums: dict[str, str] = field(default_factory=dict)

    def take(self, line: Line) -> None:
        """Take a line of the log: some of the fields, or that the last sum was opened."""
        for name, value in line.items():
            setattr(self, name, value)
        if line.get("opened"):
            self.members = self.asked
            self.sums[self.question] = _digest(self.members)


class Session:
    """A site's secure sums in one run.

    Its log is sealed, so that no older copy of it opens a sum again or uses a mask for two shares.

    Parameters
    ----------
    folder : the folder of its log.
    seals : folder of the log's seal.
    name : the name of the site.
    run : the name of the run, which the coordinator chooses.
    least : number of sites that this site wants in every sum, whatever the protocol allows.
    """

    def __init__(
        self, folder: Path, seals: Path, name: str, run: str, least: int = LEAST_SITES
    ) -> None:
        if not re.fullmatch("[0-9a-f]{1,64}", run):
            raise RefusalError(Reason.FORM, f"{run!r} is no name of a run")
        self._log = SealedLog.at(folder / f"{run}{SECURE_LOG}", seals, "secure")
        self._name, self._run, self._least = name, run, max(least, LEAST_SITES)
        self._known = _State()
        self._in_common: dict[str, bytes] = {}

    @classmethod
    @contextmanager
    def of(cls, site: Site, run: str) -> Iterator["Session"]:
        """Enter a site's session, which its other processes wait for."""
        # Of distributed noise, enough must be in every sum.
        least = max(site.rules.least_sites, site.config.honest)
        with cls(site.state.folder, site.seals, site.name, run, least).locked() as session:
            yield session

    @contextmanager
    def locked(self) -> Iterator["Session"]:
        """Read the state, and keep other processes from it."""
        with self._log.opened() as lines:
            for line in lines:
                self._known.take(line)
            yield self

    def signed_key(self, identity: Identity) -> dict[str, Value]:
        """Return this site's key of the run, signed; make it if there is none."""
        if not self._known.secret:
            self._note(secret=X25519PrivateKey.generate().private_bytes_raw().hex())
        key = self._secret.public_key().public_bytes_raw()
        return {"key": key, "signature": identity.sign(statement(self._run, self._name, key))}

    def agree(self, keys: Mapping[str, bytes]) -> dict[str, Value]:
        """Take the keys of the sites of a run, each signed by its site; they are never changed.

        A site that was away then may come back, but into no sum: the others have no key of it.

        Raises
        ------
        RefusalError
            If there are too few, or one is another than before, or this site's is not its own.
        """
        state = self._begun
        own = self._secret.public_key().public_bytes_raw()
        if keys.get(self._name) != own:
            raise RefusalError(
                Reason.KEYS, "the keys of this run hold another one under this site's name"
            )
        hexadecimal = {name: keys[name].hex() for name in sorted(keys)}
        if not state.peers:
            if len(keys) < self._least:
                raise RefusalError(
                    Reason.MEMBERS, f"{len(keys)} sites share keys, this site wants {self._least}"
                )
            self._note(peers=hexadecimal, members=list(hexadecimal))
        elif any(state.peers.get(name, key) != key for name, key in hexadecimal.items()):
            raise RefusalError(Reason.KEYS, "the keys of this run were agreed on; these are others")
        return {
            "round": state.number,
            "members": state.members,
            "threshold": self._threshold,
        }

    def check(self, sum_round: SumRound) -> None:
        """Check a sum before anything is computed for it.

        Raises
        ------
        RefusalError
            If its round is not a new one, or its sites are too few, or not all in the last sum.
        """
        state, members = self._begun, sum_round.members
        if sum_round.number <= state.number:
            raise RefusalError(
                Reason.ORDER, f"round {sum_round.number} is not after round {state.number}"
            )
        if members != sorted(set(members)) or self._name not in members:
            raise RefusalError(
                Reason.MEMBERS,
                "the sites of a sum are not this site and others in order, each once",
            )
        if added := set(members) - set(state.members):
            raise RefusalError(
                Reason.MEMBERS,
                f"{', '.join(sorted(added))} was not in the last sum; the sites of a run may only "
                "become fewer",
            )
        if len(members) < self._threshold:
            raise RefusalError(
                Reason.MEMBERS,
                f"{len(members)} sites are in the sum, of {len(state.peers)} that began the run; "
                f"this site wants {self._threshold}",
            )

    def mask(self, sum_round: SumRound, question: bytes, gated: Gated) -> Masked:
        """Mask this site's share of a sum that was checked.

        Raises
        ------
        RefusalError
            If the question was summed over other sites: the difference of the two sums would be a
            share.
        """
        state, members = self._begun, sum_round.members
        self._refuse_other_sites(members, question)
        vector = encode(gated.sums, len(members))
        counts = np.array(gated.counts, np.int64).view(np.uint64)
        keys = [bytes.fromhex(state.peers[name]) for name in members]
        bound_to = context(sum_round, keys, question, schema(gated.sums, len(members)))
        seed = self._seed(bound_to)
        self._add_pairwise_masks(vector, counts, members, bound_to)
        add_mask(vector, self_mask(seed, bound_to), 1)
        envelopes = self._envelopes(members, bound_to, seed, counts.tobytes())
        # A sum that is never opened tells nothing, so it leaves nobody out.
        self._note(
            asked=list(members),
            number=sum_round.number,
            bound_to=bound_to.hex(),
            gate=asdict(gated.gate),
            question=question.hex(),
            opened=False,
        )
        return Masked(vector, envelopes, seal(seed, bound_to))

    def _refuse_other_sites(self, members: list[str], question: bytes) -> None:
        if self._begun.sums.get(question.hex(), _digest(members)) != _digest(members):
            raise RefusalError(
                Reason.MEMBERS,
                "this was summed over other sites before; the difference would be the share of "
                "those that are missing now",
            )

    def _add_pairwise_masks(
        self, vector: Ring, counts: Ring, members: list[str], bound_to: bytes
    ) -> None:
        """Add to both, in place, the masks that cancel in the sum over all members."""
        for name in members:
            if name != self._name:
                sign = 1 if self._name < name else -1
                add_mask(vector, derive(self._shared(name), "mask", bound_to), sign)
                add_mask(counts, derive(self._shared(name), "counts", bound_to), sign)

    def unmask(self, number: int, envelopes: list[bytes]) -> dict[str, Value]:
        """Open the last sum, once: this site's seed, and its parts of the others'.

        Parameters
        ----------
        envelopes : what each member has for this site, in their order.

        Raises
        ------
        RefusalError
            If it is not the last sum, or was opened, or an envelope is not of it, or the
            members' counts do not pass the gate.
        """
        state = self._begun
        if number != state.number or not state.bound_to:
            raise RefusalError(
                Reason.ORDER, f"round {number} is not the last, {state.number}; it stays closed"
            )
        if state.opened:
            raise RefusalError(Reason.ORDER, f"round {number} was opened before; once is enough")
        if len(envelopes) != len(state.asked):
            raise RefusalError(
                Reason.FORM, f"{len(envelopes)} envelopes for {len(state.asked)} sites"
            )
        bound_to, gate = bytes.fromhex(state.bound_to), Gate(**state.gate)
        parts, total = [], np.zeros(gate.size, np.uint64)
        for name, envelope in zip(state.asked, envelopes, strict=True):
            part = self._read(envelope, name, bound_to)
            parts.append(part[:_SEED])
            total += np.frombuffer(part[_SEED:], np.uint64)
        gate.check(total.view(np.int64).tolist())
        self._note(opened=True)
        return {"seed": self._seed(bound_to), "parts": parts}

    def _envelopes(
        self, members: list[str], bound_to: bytes, seed: bytes, counts: bytes
    ) -> list[bytes]:
        """Cut the seed into parts, any ``threshold`` of which make it, and lock each for one."""
        parts = split(seed, self._threshold, len(members))
        return [
            AESGCM(self._envelope_key(self._name, name, bound_to)).encrypt(
                _NONCE, part + counts, None
            )
            for name, part in zip(members, parts, strict=True)
        ]

    def _read(self, envelope: bytes, sender: str, bound_to: bytes) -> bytes:
        try:
            key = self._envelope_key(sender, self._name, bound_to)
            return AESGCM(key).decrypt(_NONCE, envelope, None)
        except InvalidTag as error:
            raise RefusalError(
                Reason.KEYS,
                f"an envelope is not {sender}'s in this round: its sites, keys or question differ",
            ) from error

    def _envelope_key(self, sender: str, reader: str, bound_to: bytes) -> bytes:
        secret = self._shared(reader if sender == self._name else sender)
        return derive(secret, f"envelope {json.dumps([sender, reader])}", bound_to)

    def _shared(self, name: str) -> bytes:
        """Return what this site and another (or itself) have in common."""
        if name not in self._in_common:
            other = X25519PublicKey.from_public_bytes(bytes.fromhex(self._known.peers[name]))
            self._in_common[name] = self._secret.exchange(other)
        return self._in_common[name]

    def _seed(self, bound_to: bytes) -> bytes:
        return derive(self._secret.private_bytes_raw(), "seed", bound_to)[:_SEED]

    @property
    def _threshold(self) -> int:
        """How many sites must be in a sum, and must agree to open it."""
        return max(self._least, threshold(len(self._known.peers)))

    @property
    def _secret(self) -> X25519PrivateKey:
        return X25519PrivateKey.from_private_bytes(bytes.fromhex(self._begun.secret))

    @property
    def _begun(self) -> _State:
        if not self._known.secret:
            raise RefusalError(Reason.ORDER, "this site has no key of this run; ask for one first")
        return self._known

    def _note(self, **fields: Any) -> None:
        """Write to the log what is new, before anything comes of it."""
        self._log.append(fields)
        self._known.take(fields)


def _digest(members: list[str]) -> str:
    return hashlib.sha256(json.dumps(members).encode()).hexdigest()
