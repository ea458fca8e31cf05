"""Arrays arrive as they were sent; what is not what it says is refused in one line."""

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from common.errors import ReplyError
from common.wire.messages import pack, size, unpack_arrays

KINDS = st.one_of(hnp.floating_dtypes(), hnp.integer_dtypes(), hnp.boolean_dtypes())
ARRAYS = hnp.arrays(KINDS, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0))


@given(st.dictionaries(st.text(min_size=1, max_size=5), ARRAYS, max_size=4), st.booleans())
def test_arrays_arrive_bit_for_bit(arrays: dict[str, np.ndarray], turned: bool) -> None:
    sent = {name: a.T if turned else a for name, a in arrays.items()}
    content = pack(sent, {"n": 1})
    found = unpack_arrays(content)
    assert found.keys() == sent.keys()
    for name, array in sent.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        assert found[name].tobytes() == array.tobytes()
        assert not found[name].flags.writeable  # all sites of a process see the same bytes
    assert size(content) == sum(a.nbytes for a in sent.values()) + 8


EIGHT = b"\0" * 8
ODD = {
    "pickled objects": Array("|O", (1,), "raw", EIGHT),
    "no dtype": Array("float", (1,), "raw", b"\0" * 7),
    "an unknown dtype": Array("rubbish", (1,), "raw", EIGHT),
    "too few bytes": Array("<f4", (3,), "raw", EIGHT),
    "too many bytes": Array("<f4", (1,), "raw", EIGHT),
    "half a number": Array("<f8", (1,), "raw", EIGHT[:5]),
    "another way of writing": Array(np.zeros(2)),
}


@pytest.mark.parametrize("what", ODD)
def test_what_is_no_array_is_refused(what: str) -> None:
    content = RecordDict({"arrays": ArrayRecord({"x": ODD[what]})})
    with pytest.raises(ReplyError, match="the message's arrays cannot be read") as refusal:
        unpack_arrays(content)
    assert "\n" not in str(refusal.value)


def test_a_message_without_arrays_is_refused() -> None:
    with pytest.raises(ReplyError, match="cannot be read"):
        unpack_arrays(RecordDict({}))
