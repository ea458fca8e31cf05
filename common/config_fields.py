"""Kinds of configuration values, as Flower's run configuration can hold them."""

from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field


def _split(value: object) -> object:
    """Read "1e-5,1e-4" and 1e-5 as tuples: Flower's run configuration holds no lists."""
    if isinstance(value, str):
        return tuple(value.split(","))
    return (value,) if isinstance(value, int | float) else value


def absent(value: object) -> object:
    """Read "" as None: Flower's run configuration holds no nulls."""
    return None if value == "" else value


Some = Field(min_length=1)

Names = Annotated[
    tuple[Annotated[str, Field(pattern=r"^[\w.]+$")], ...], BeforeValidator(_split), Some
]
Counts = Annotated[tuple[Annotated[int, Field(ge=1)], ...], BeforeValidator(_split), Some]
Positives = Annotated[tuple[Annotated[float, Field(gt=0)], ...], BeforeValidator(_split), Some]
OptionalPath = Annotated[Path | None, BeforeValidator(absent)]
