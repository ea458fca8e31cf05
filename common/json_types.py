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


def plain(value: object) -> object:
    """Return values with None for what is no number, which JSON has not."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
