"""Kinds of configuration values, as Flower's run configuration can hold them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field


def split(value: object) -> object:
    """Read "1e-5,1e-4" and 1e-5 as tuples: Flower's run configuration holds no lists."""
    if isinstance(value, str):
        return tuple(value.split(","))
    return (value,) if isinstance(value, int | float) else value


def absent(value: object) -> object:
    """Read "" as None: Flower's run configuration holds no nulls."""
    return None if value == "" else value


def _named(path: Path) -> Path:
    if "\0" in str(path):
        raise ValueError("no file's name has a NUL character")
    return path


def fill_in(values: dict[str, object], chosen: Mapping[str, object]) -> dict[str, object]:
    """Give keys that are absent or empty the values that were chosen for them."""
    return values | {key: value for key, value in chosen.items() if values.get(key, "") == ""}


Some = Field(min_length=1)

Names = Annotated[
    tuple[Annotated[str, Field(pattern=r"^[\w.]+$")], ...], BeforeValidator(split), Some
]
Counts = Annotated[tuple[Annotated[int, Field(ge=1)], ...], BeforeValidator(split), Some]
Positives = Annotated[tuple[Annotated[float, Field(gt=0)], ...], BeforeValidator(split), Some]
FilePath = Annotated[Path, AfterValidator(_named)]
OptionalPath = Annotated[FilePath | None, BeforeValidator(absent)]
