"""A reply is read only if it looks exactly like the neutral element."""

import re
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from common.errors import ReplyError
from common.statistics.calibration import CalibrationSums
from common.statistics.metrics import Evaluation
from common.statistics.moments import Moments
from common.statistics.sums import Nothing, Sums
from common.svm.objective import HingeSums

ZERO = Moments.zero(3, 2)
NEUTRAL = [ZERO, HingeSums.zero((2, 3, 4)), CalibrationSums.zero(3), Evaluation.zero(3), Nothing()]


def record(**changes: Any) -> dict[str, NDArray[Any]]:
    return {**ZERO.to_record(), **changes}


@pytest.mark.parametrize("zero", NEUTRAL, ids=lambda zero: type(zero).__name__)
def test_the_neutral_element_is_neutral_and_reads_its_own_kind(zero: Sums) -> None:
    ones = type(zero)(**{name: np.ones_like(a) for name, a in zero.to_record().items()})
    for got in (zero + ones, ones + zero, zero.from_record(ones.to_record())):
        assert type(got) is type(zero)
        for name, array in got.to_record().items():
            np.testing.assert_array_equal(array, getattr(ones, name))
            assert array.dtype == getattr(zero, name).dtype


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ({"gram": np.zeros(3)}, "arrays are ['gram'], expected ['class_sum', 'class_weight', "),
        (record(more=np.zeros(1)), "'gram', 'more'], expected"),
        (record(gram=np.zeros(4)), "array 'gram' is float64[4], expected float64[3]"),
        (record(gram=np.zeros((3, 1))), "array 'gram' is float64[3, 1], expected float64[3]"),
        (record(gram=np.zeros(3, np.float32)), "array 'gram' is float32[3], expected float64[3]"),
        (record(gram=np.zeros(3, ">f8")), "array 'gram' is >f8[3], expected float64[3]"),
        (record(gram=np.array([0, np.nan, 0])), "array 'gram' holds NaN or infinite values"),
        (record(class_sum=np.full((3, 2), -np.inf)), "array 'class_sum' holds NaN or infinite"),
        (record(class_weight=np.array([1.0, -5.0, 1.0])), "array 'class_weight' is negative"),
    ],
)
def test_a_reply_of_another_kind_is_refused_by_name(reply: Any, reason: str) -> None:
    with pytest.raises(ReplyError, match=re.escape(reason)):
        ZERO.from_record(reply)


@pytest.mark.parametrize(
    ("zero", "name"),
    [
        (HingeSums.zero((2, 3, 4)), "loss"),
        (CalibrationSums.zero(3), "count"),
        (CalibrationSums.zero(3), "loss"),
    ],
)
def test_counts_and_losses_cannot_be_negative(zero: Sums, name: str) -> None:
    reply = {**zero.to_record(), name: getattr(zero, name) - 1}
    with pytest.raises(ReplyError, match=f"'{name}' is negative"):
        zero.from_record(reply)


def test_nothing_reads_nothing_only() -> None:
    assert Nothing().from_record({}) == Nothing() + Nothing()
    with pytest.raises(ReplyError, match="expected \\[\\]"):
        Nothing().from_record({"loss": np.zeros(1)})
