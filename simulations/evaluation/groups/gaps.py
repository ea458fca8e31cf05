"""Gaps between groups and the rest, with intervals that hold for all of them at once."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from common.arrays import Floats
from common.formats import estimate, rounded

LEVEL, POWER = 0.05, 0.8
"""Chance of any wrong claim among all gaps, and chance with which a gap is to be seen."""

NORMAL, NORMAL_OF_POWER = 1.959963984540054, 0.8416212335729143
"""Quantiles of the normal distribution, for 95 % on both sides and for `POWER`."""


@dataclass(frozen=True)
class Gap:
    """A group's metric minus that of the rest.

    Attributes
    ----------
    value, low, high : in [-1, 1], with its simultaneous 95 % interval; nan where too few lesions.
    detectable : smallest gap that these lesions would have shown with a chance of 80 %.
    """

    value: float
    low: float
    high: float
    detectable: float

    @property
    def shown(self) -> bool:
        """Whether the interval is without 0."""
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        """Return the value with its interval; "-" where there is none."""
        if np.isnan(self.value):
            return "-"
        return estimate(self.value, (self.low, self.high), "+.3f")

    def with_detectable(self) -> str:
        """Return the same, and behind it the smallest gap to be seen."""
        return "-" if np.isnan(self.value) else f"{self}; {rounded(self.detectable)}"


NO_GAP = Gap(*[float("nan")] * 4)


@dataclass(frozen=True)
class Resampled:
    """A gap before its interval.

    Attributes
    ----------
    values : (1 + repeats,) as it is, then of every resample.
    least_error : smallest standard error that is believed.
    """

    values: Floats
    least_error: float

    @property
    def error(self) -> float:
        """Standard error."""
        return max(float(np.nanstd(self.values[1:], ddof=1)), self.least_error)


def simultaneous(gaps: Sequence[Resampled]) -> tuple[list[Gap], float]:
    """Return the gaps with their intervals, and by how many standard errors these reach.

    A gap lies within its interval for all gaps at once with 95 %: the reach is the quantile of the
    largest standardised deviation in a resample. Groups overlap, and of two groups each is the
    other's rest; the largest deviation knows that, where Holm's and Bonferroni's corrections count
    each gap as a claim of its own. Holm's gives no intervals, either.

    References
    ----------
    Westfall and Young (1993), "Resampling-based multiple testing", section 2.3 (the maximum);
    Bloom (1995), "Minimum detectable effects", Evaluation Review 19(5).
    """
    if not gaps:
        return [], NORMAL
    deviations = [np.abs(g.values[1:] - np.nanmean(g.values[1:])) / g.error for g in gaps]
    largest = np.nanmax(deviations, axis=0)
    reach = max(NORMAL, float(np.quantile(largest, 1 - LEVEL)))
    return [_gap(each, reach) for each in gaps], reach


def _gap(gap: Resampled, reach: float) -> Gap:
    value, half = float(gap.values[0]), reach * gap.error
    return Gap(
        value,
        max(value - half, -1.0),
        min(value + half, 1.0),
        min((reach + NORMAL_OF_POWER) * gap.error, 1.0),
    )
