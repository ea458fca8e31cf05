"""Types of what JSON holds, and its numbers."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

Json: TypeAlias = "bool | float | str | Sequence[Json] | Mapping[str, Json] | None"
"""A value to be written as JSON; an integer counts as a float here."""

JsonObject = dict[str, Any]
"""A JSON object as it was read: whoever reads it knows which keys and types it must have."""


def number(value: float | None) -> float:
    """Return a number as it was read; null stands for nan, which JSON has not."""
    return math.nan if value is None else value
