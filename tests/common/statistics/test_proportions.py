"""Wilson's interval against scipy's."""

import pytest
from scipy.stats import binomtest

from common.statistics.proportions import wilson


@pytest.mark.parametrize(("k", "n"), [(0, 1), (1, 1), (0, 30), (30, 30), (3, 19), (950, 1000)])
def test_interval_is_scipys(k: int, n: int) -> None:
    want = binomtest(k, n).proportion_ci(method="wilson")
    assert wilson(k, n) == pytest.approx((want.low, want.high), abs=1e-12)
    assert 0 <= wilson(k, n)[0] <= k / n <= wilson(k, n)[1] <= 1


def test_nothing_says_nothing() -> None:
    assert wilson(0, 0) == (0.0, 1.0)
