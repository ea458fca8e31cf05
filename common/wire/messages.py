"""What a message holds: named arrays and plain values, in Flower's records.

Arrays travel as their bytes, not as NumPy files, which is Flower's way: a network is hundreds of
arrays, most of them small, and a file of each has to be written, copied and parsed.
"""

import hashlib
from collections.abc import Mapping

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, ConfigRecordValues, RecordDict
from numpy.typing import NDArray

from common.errors import ReplyError
from common.sources import shared_digest

Arrays = Mapping[str, NDArray[np.generic]]
Value = ConfigRecordValues

_RAW = "raw"
"""How an array is written: its bytes in C order, in the byte order that its dtype names."""

BOUND = "bound"
"""Record of what binds an answer to its question."""

PROGRAM = "program"
"""Record of which program asks."""


def pack(arrays: Arrays, values: Mapping[str, Value]) -> RecordDict:
    """Put ``arrays``, of any shape, and values into a message's content."""
    return RecordDict(
        {
            "arrays": ArrayRecord({name: _write(np.asarray(a)) for name, a in arrays.items()}),
            "values": ConfigRecord(dict(values)),
        }
    )


def unpack_arrays(content: RecordDict) -> dict[str, NDArray[np.generic]]:
    """Return a message's arrays, in the shapes sent and read-only; no pickle is ever read.

    Raises
    ------
    ReplyError
        If there are none, or one is not what it says it is.
    """
    try:
        return {name: _read(array) for name, array in content.array_records["arrays"].items()}
    except (KeyError, TypeError, ValueError) as error:
        raise ReplyError(f"the message's arrays cannot be read ({error})") from error


def unpack_values(content: RecordDict) -> dict[str, Value]:
    """Return the plain values of a message's content.

    Raises
    ------
    ReplyError
        If there are none.
    """
    try:
        return dict(content.config_records["values"].items())
    except KeyError as error:
        raise ReplyError(f"the message has no values ({error})") from error


def digest(content: RecordDict, without: str = BOUND) -> bytes:
    """Return the SHA-256 of a content's arrays and values, but for one of its records."""
    sha256 = hashlib.sha256()
    for name, record in sorted(content.array_records.items()):
        for key, array in sorted(record.items()):
            sha256.update(repr((name, key, array.dtype, array.shape, array.stype)).encode())
            sha256.update(array.data)
    for name, values in sorted(content.config_records.items()):
        if name != without:
            sha256.update(repr((name, sorted(values.items()))).encode())
    return sha256.digest()


def stamp(content: RecordDict) -> RecordDict:
    """Say with a question which program asks."""
    content[PROGRAM] = ConfigRecord({"sha256": shared_digest()})
    return content


def same_program(content: RecordDict) -> bool:
    """Tell whether who asks a question computes with the same sources as this process."""
    return content.config_records.get(PROGRAM, ConfigRecord()).get("sha256") == shared_digest()


def bind(content: RecordDict, question: bytes) -> RecordDict:
    """Bind an answer to its question, so that no other answer is taken for it.

    This is no signature: it shows damaged and late messages in both directions, but not who wrote
    them.

    Parameters
    ----------
    question : digest of the question as it arrived.
    """
    content[BOUND] = ConfigRecord({"sha256": _binding(content, question)})
    return content


def check_bound(content: RecordDict, question: bytes) -> None:
    """Check that an answer arrived as it was sent.

    Parameters
    ----------
    question : digest of the question as it was sent.

    Raises
    ------
    ReplyError
        If it, or its question, changed on the way, or it answers another question.
    """
    record = content.config_records.get(BOUND, ConfigRecord())
    if record.get("sha256") != _binding(content, question):
        raise ReplyError("sent an answer that was damaged on the way, or is to another question")


def size(content: RecordDict) -> int:
    """Return the bytes of a content's arrays and values."""
    # Not Flower's count_bytes, which raises on an empty string.
    arrays = (len(a.data) for record in content.array_records.values() for a in record.values())
    values = (_bytes(v) for record in content.config_records.values() for v in record.values())
    return sum(arrays) + sum(values)


def _binding(content: RecordDict, question: bytes) -> bytes:
    return hashlib.sha256(question + digest(content)).digest()


def _write(array: NDArray[np.generic]) -> Array:
    return Array(array.dtype.str, array.shape, _RAW, array.tobytes())


def _read(array: Array) -> NDArray[np.generic]:
    if array.stype != _RAW:
        raise ValueError(f"an array is written as '{array.stype}', not as '{_RAW}'")
    return np.frombuffer(array.data, np.dtype(array.dtype)).reshape(array.shape)


def _bytes(value: Value) -> int:
    if isinstance(value, list):
        return sum(map(_bytes, value))
    return len(value) if isinstance(value, str | bytes) else 8
