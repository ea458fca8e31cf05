"""Figures of a report in points: hundredths, so that a share of all is 100."""

import math
from collections.abc import Sequence

from common.formats import rounded
from simulations.evaluation.bounded import Bounded
from simulations.study.results import Estimate

SIGNED = "+.1f"


def in_points(value: float, layout: str = ".1f") -> str:
    """Return a share in [0, 1], or a difference of two, as points; "-" for nan."""
    text = rounded(100 * value, layout)
    return "0.0" if text in ("-0.0", "+0.0") else text


def span(bounds: Sequence[float], layout: str = ".1f") -> str:
    """Return an interval as points."""
    low, high = (in_points(bound, layout) for bound in bounds)
    return f"{low} to {high}"


def with_interval(value: float, bounds: Sequence[float], layout: str = ".1f") -> str:
    """Return a value as points, with its interval in brackets where it has one."""
    shown = in_points(value, layout)
    return shown if any(map(math.isnan, bounds)) else f"{shown} ({span(bounds, layout)})"


def spelled(value: float, bounds: Sequence[float], layout: str = ".1f") -> str:
    """Return a value with its unit, and its interval in brackets where it has one."""
    interval = "" if any(map(math.isnan, bounds)) else f" ({span(bounds, layout)})"
    return f"{in_points(value, layout)} points{interval}"


def shown(value: Estimate | Bounded) -> str:
    """Return a metric as points, with its interval in brackets where it has one."""
    middle = value.mean if isinstance(value, Estimate) else value.value
    return with_interval(middle, (value.low, value.high))


def amount(value: float) -> str:
    """Return a positive amount with two digits or more."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"
