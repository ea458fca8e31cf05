"""Half precision loses what it says and no more, and what it makes is told from the rest."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from common.errors import ReplyError
from common.finetune.half_precision import at_site, rounded, to_site, to_wire
from common.finetune.update import Update

numbers = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=0, min_side=0), elements=st.floats(-255, 255, width=32)
)


@given(numbers)
def test_what_crosses_the_wire_is_right_to_a_part_in_two_thousand(array):
    sent = to_wire({"w": array, "step/w": array})
    assert {name: a.dtype for name, a in sent.items()} == {"w": "<f2", "step/w": "<f4"}
    found = rounded({"w": array, "step/w": array})
    np.testing.assert_allclose(found["w"], array, rtol=2**-11, atol=2**-33)
    np.testing.assert_array_equal(found["step/w"], array)
    # Rounded numbers are left as they are.
    np.testing.assert_array_equal(rounded(found)["w"], found["w"])


@given(numbers, st.floats(0.5, 2, width=32))
def test_of_weights_only_what_training_changed_is_rounded(change, pretrained):
    start = np.full_like(change, pretrained)
    weights = {"w": start + change}
    found = at_site(to_site(weights, {"w": start}), {"w": start})["w"]
    np.testing.assert_allclose(
        found, weights["w"], rtol=3e-7, atol=2**-11 * np.abs(change).max(initial=1e-6)
    )
    np.testing.assert_array_equal(
        at_site(to_site({"w": start}, {"w": start}), {"w": start})["w"], start
    )


@pytest.mark.parametrize("large", [256.0, -1e30])
def test_what_half_precision_cannot_tell_is_infinite_and_refused(large):
    record = Update.of(2.0, 1.0, {"w": np.full(3, large, np.float32)}).to_record()
    with pytest.raises(ReplyError, match="array 'w' holds NaN or infinite values"):
        Update.zero({"w": (3,)}).from_record(record)
