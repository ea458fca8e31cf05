"""A metric with its interval."""

from typing import NamedTuple


class Bounded(NamedTuple):
    """A value with its 95 % interval, which is nan where nothing can be resampled."""

    value: float
    low: float
    high: float
