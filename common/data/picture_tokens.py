"""Keyed tokens of pictures: who compares them finds near-duplicates, and nothing else.

A token is an HMAC-SHA256 of some bits of a picture's hash under a secret that the sites share. Near
copies agree in all bits of many a draw of 32, other pictures in hardly any: locality-sensitive
hashing by bit sampling (Indyk and Motwani 1998). Without the secret tokens are random numbers.
"""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from common.arrays import Bools, Ints
from common.data.duplicates import Hashes
from common.statistics.sums import Sums

DRAWS = 128
"""Draws of bits, of each of which a picture has a token."""

LEAST_EQUAL = 2
"""Tokens from which on two pictures are copies.

How many copies this finds, and how many others: `python -m simulations.experiments.duplicates`.
"""

_BITS = 256
_DRAWN = 32  # bits a draw
_BYTES = 8  # of a token


@dataclass(frozen=True)
class PictureTokens(Sums):
    """The tokens of sites' pictures; adding two gives those of both sites' pictures.

    Attributes
    ----------
    tokens : (n, DRAWS) of n rows; a row is a picture, or padding.
    marks : (sites,) one for each site, equal where the secrets are.
    """

    tokens: Ints
    marks: Ints

    @classmethod
    def zero(cls) -> Self:
        """Return the tokens of no site."""
        return cls(np.zeros((0, DRAWS), dtype=np.int64), np.zeros(0, dtype=np.int64))

    def __add__(self, other: Self) -> Self:
        """Return the rows of both, in order."""
        pairs = (self.tokens, other.tokens), (self.marks, other.marks)
        return type(self)(*(np.concatenate(pair) for pair in pairs))

    def from_record(self, record: Mapping[str, NDArray[np.generic]]) -> Self:
        """Read one site's record, of any number of rows.

        Parameters
        ----------
        record : ``tokens`` (n, DRAWS) and ``marks`` (1,).

        Raises
        ------
        ReplyError
            As of :meth:`Sums.from_record`.
        """
        rows = len(np.atleast_1d(record.get("tokens", ())))
        like = type(self)(np.zeros((rows, DRAWS), dtype=np.int64), np.zeros(1, dtype=np.int64))
        return super(PictureTokens, like).from_record(record)


def padded(hashes: Hashes, key: bytes, own: bytes, rows: int) -> PictureTokens:
    """Return a site's tokens, which look the same whatever and however many its pictures are.

    No token occurs twice: of several pictures with one, the first has it, padding the others. Rows
    are shuffled. The same arguments give the same tokens, so asking again tells nothing more.

    Parameters
    ----------
    hashes : (n, 4) of the site's pictures, at most ``rows``.
    key : known to all sites; of it and the pictures tokens are made.
    own : known to this site; of it padding and order are made.
    """
    filled = _random(own, b"padding", rows * DRAWS).reshape(rows, DRAWS)
    found = tokens(hashes, key)
    filled[: len(found)] = np.where(_repeated(found), filled[: len(found)], found)
    mark = np.frombuffer(_keyed(key, b"mark"), dtype="<i8")
    return PictureTokens(filled[order(own, rows)], mark.astype(np.int64))


def order(own: bytes, rows: int) -> Ints:
    """Return which picture, or padding, is in each row (rows,) of :func:`padded`."""
    return np.argsort(_random(own, b"order", rows), kind="stable").astype(np.int64)


def tokens(hashes: Hashes, key: bytes) -> Ints:
    """Return the tokens (n, DRAWS) of pictures.

    Parameters
    ----------
    hashes : (n, 4) of the pictures.
    key : of which tokens and drawn bits are made.
    """
    bits = np.unpackbits(np.ascontiguousarray(hashes).view(np.uint8).reshape(-1, 32), axis=1)
    columns = [_tokens(bits, key, draw) for draw in range(DRAWS)]
    return np.stack(columns, axis=1).astype(np.int64)


def shared(one: Ints, other: Ints) -> Ints:
    """Return the rows (m, 2) of two sites that are near-duplicates, ascending.

    Parameters
    ----------
    one, other : tokens, (n, DRAWS) each.
    """
    equal = [np.zeros(0, dtype=np.int64)]
    for draw in range(DRAWS):
        _, i, j = np.intersect1d(one[:, draw], other[:, draw], return_indices=True)
        equal.append(i * len(other) + j)
    pairs, counts = np.unique(np.concatenate(equal), return_counts=True)
    return np.stack(np.divmod(pairs[counts >= LEAST_EQUAL], max(1, len(other))), axis=1)


def _tokens(bits: NDArray[np.uint8], key: bytes, draw: int) -> Ints:
    """Return the tokens (n,) of a draw from the ``bits`` (n, 256) of pictures."""
    name = draw.to_bytes(2)
    # Of hashes, not of a generator: other versions of NumPy may draw other bits.
    ranks = [_keyed(key, b"bit" + name + bit.to_bytes(2)) for bit in range(_BITS)]
    drawn = sorted(range(_BITS), key=ranks.__getitem__)[:_DRAWN]
    pieces = np.packbits(bits[:, drawn], axis=1)
    digests = b"".join(_keyed(key, b"picture" + name + piece.tobytes()) for piece in pieces)
    return np.frombuffer(digests, dtype="<i8")


def _keyed(key: bytes, text: bytes) -> bytes:
    return hmac.digest(key, text, "sha256")[:_BYTES]


def _random(key: bytes, purpose: bytes, size: int) -> Ints:
    """Return numbers (size,) that without ``key`` nobody can tell from random ones."""
    seed = hmac.digest(key, purpose, "sha256")
    stream = hashlib.shake_256(seed).digest(size * _BYTES)
    return np.frombuffer(stream, dtype="<i8").astype(np.int64)


def _repeated(found: Ints) -> Bools:
    """Return where, (n, DRAWS), an earlier picture has the same token of a draw."""
    again = np.ones(found.shape, dtype=np.bool_)
    for draw, column in enumerate(found.T):
        again[np.unique(column, return_index=True)[1], draw] = False
    return again
