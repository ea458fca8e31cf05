"""Intervals of shares."""

import math

_QUANTILE = 1.959963984540054  # of the normal distribution, for 95 %


def wilson(successes: float, n: float) -> tuple[float, float]:
    """Return the 95 % interval of a share, in [0, 1]; the whole range if there is nothing.

    Parameters
    ----------
    successes : in [0, ``n``].
    n : number of records, of which some may count in part.

    References
    ----------
    Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22, 1927.
    """
    if not n:
        return 0.0, 1.0
    share, square = successes / n, _QUANTILE**2
    middle = (share + square / (2 * n)) / (1 + square / n)
    half = _QUANTILE / (1 + square / n) * math.sqrt(share * (1 - share) / n + square / (4 * n**2))
    # The bounds are exact at both ends but for rounding.
    low = middle - half if successes else 0.0
    return low, middle + half if successes < n else 1.0
