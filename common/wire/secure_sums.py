"""What sites and coordinator share in a secure sum: keys, masks, and what masks are bound to.

Every pair of sites adds and subtracts the same mask, and each site one of its own, which is
opened when all have answered (Bonawitz et al., "Practical secure aggregation for
privacy-preserving machine learning", CCS 2017, sections 4 and 6). ``docs/security.md`` has the
protocol in one page. Primitives are those of the libraries ``cryptography`` and, for Shamir's
scheme, ``pycryptodome``.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from Crypto.Protocol.SecretSharing import Shamir
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from flwr.app import ConfigRecord, RecordDict

from common.errors import ReplyError
from common.wire.fixed_point import Ring
from common.wire.messages import digest

KEY = "secure.key"
"""Question for a site's key of this run, signed."""
PEERS = "secure.peers"
"""Question that brings a site the keys of all."""
UNMASK = "secure.unmask"
"""Question for what opens the last sum."""

LEAST_SITES = 3
"""With two, each finds the other's share by taking its own from the sum."""

RECORD = "secure"
"""Record of a question that says which sum it is for."""

_CHUNK = 1 << 16  # numbers masked at a time: what is in use stays in a core's cache
_ZEROS = bytes(8 * _CHUNK)
_VERSION = "fedderm secure sum 1"


def threshold(sites: int) -> int:
    """Return how many of the sites that began a run must be in every sum: above two thirds.

    Then even where a third of the sites tell a dishonest coordinator all they know, no two sets
    can both open a sum of one round (Bonawitz et al. 2017, section 6, on active adversaries).
    """
    return max(LEAST_SITES, 2 * sites // 3 + 1)


class SumRound(NamedTuple):
    """A round of secure sums, as a question names it.

    Attributes
    ----------
    run : name of the run.
    number : the number of the round; each is higher than those before.
    members : names of the sites in the sum, in their order.
    """

    run: str
    number: int
    members: list[str]

    def put_into(self, content: RecordDict) -> RecordDict:
        """Add this to a question's content."""
        content[RECORD] = ConfigRecord(
            {"run": self.run, "number": self.number, "members": self.members}
        )
        return content

    @classmethod
    def read(cls, content: RecordDict) -> "SumRound":
        """Read a question's content.

        Raises
        ------
        ReplyError
            If it does not say how it is to be summed.
        """
        try:
            record = content.config_records[RECORD]
            run, number, members = (record[key] for key in cls._fields)
        except KeyError as error:
            raise ReplyError("the question does not say which secure sum it is for") from error
        if not (isinstance(run, str) and type(number) is int and isinstance(members, list)):
            raise ReplyError("the question says in a wrong form which secure sum it is for")
        return cls(run, number, [str(member) for member in members])


def question_digest(content: RecordDict) -> bytes:
    """Return a digest of a question and all that comes with it, but for its secure sum."""
    return digest(content, without=RECORD)


def context(sum_round: SumRound, keys: Sequence[bytes], question: bytes, schema: str) -> bytes:
    """Return a digest of all that a sum's masks are bound to.

    Parameters
    ----------
    keys : the members' public keys.
    question : its digest. Sites that are sent different ones have masks that do not cancel:
        Pasquini, Francati and Ateniese, "Eluding secure aggregation in federated learning via
        model inconsistency", CCS 2022.
    schema : names, types and shapes of what is summed.
    """
    parts = [_VERSION, *sum_round, [key.hex() for key in keys], question.hex(), schema]
    return hashlib.sha256(json.dumps(parts).encode()).digest()


def statement(run: str, site: str, key: bytes) -> bytes:
    """Return what a site signs to say that this is its key of this run."""
    return json.dumps([_VERSION, "key", run, site, key.hex()]).encode()


def derive(secret: bytes, purpose: str, bound_to: bytes) -> bytes:
    """Return a key of 32 bytes by HKDF (RFC 5869): one for each purpose and context."""
    return HKDF(SHA256(), 32, salt=None, info=purpose.encode() + b"\0" + bound_to).derive(secret)


def add_mask(vector: Ring, key: bytes, sign: int) -> None:
    """Add the keystream of AES-256 in counter mode to ``vector`` (length,), in place.

    Parameters
    ----------
    key : 32 bytes, used once.
    sign : 1 to add, -1 to subtract.
    """
    stream = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()
    buffer = bytearray(8 * _CHUNK + 15)
    mask = np.frombuffer(buffer, "<u8", _CHUNK)
    apply = np.add if sign > 0 else np.subtract
    for begin in range(0, len(vector), _CHUNK):
        part = vector[begin : begin + _CHUNK]
        stream.update_into(memoryview(_ZEROS)[: 8 * len(part)], buffer)
        apply(part, mask[: len(part)], out=part)


def seal(seed: bytes, bound_to: bytes) -> bytes:
    """Return a digest that identifies a site's seed and tells nothing else about it."""
    return hashlib.sha256(b"seal\0" + bound_to + seed).digest()


def self_mask(seed: bytes, bound_to: bytes) -> bytes:
    """Return the key of the mask that a seed stands for."""
    return derive(seed, "self", bound_to)


def split(seed: bytes, least: int, parts: int) -> list[bytes]:
    """Cut a seed of 16 bytes into parts, any ``least`` of which make it (Shamir 1979)."""
    return [part for _, part in Shamir.split(least, parts, seed, False)]


def combine(parts: Mapping[int, bytes]) -> bytes:
    """Return the seed that parts make, which are named by their places from 0.

    Too few of them, or wrong ones, make another one: see :func:`seal`.
    """
    return Shamir.combine([(place + 1, part) for place, part in parts.items()], False)
