"""What a message holds: named arrays and plain values, in Flower's records."""

from collections.abc import Mapping

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, ConfigRecordValues, RecordDict
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[np.generic]]
Value = ConfigRecordValues


def pack(arrays: Arrays, values: Mapping[str, Value]) -> RecordDict:
    """Put arrays and values into a message's content."""
    return RecordDict(
        {
            "arrays": ArrayRecord({name: Array(np.asarray(a)) for name, a in arrays.items()}),
            "values": ConfigRecord(dict(values)),
        }
    )


def unpack_arrays(content: RecordDict) -> dict[str, NDArray[np.generic]]:
    """Return the arrays of a message's content; no pickle is ever read."""
    return {name: array.numpy() for name, array in content.array_records["arrays"].items()}


def unpack_values(content: RecordDict) -> dict[str, Value]:
    """Return the plain values of a message's content."""
    return dict(content.config_records["values"].items())


def size(content: RecordDict) -> int:
    """Return the bytes of a content's records."""
    return sum(record.count_bytes() for record in content.values())
