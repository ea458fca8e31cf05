"""Kinds of configuration values, as Flower's run configuration can hold them."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field

from common.errors import ConfigError
from common.text import matching

T = TypeVar("T")


def split(value: object) -> object:
    """Read "1e-5,1e-4" and 1e-5 as tuples: Flower's run configuration holds no lists."""
    if isinstance(value, str):
        return tuple(value.split(","))
    return (value,) if isinstance(value, int | float) else value


def listed(value: object) -> object:
    """Read "mel, nv" as a tuple without blanks at the ends, and "" as an empty one."""
    if isinstance(value, str):
        value = value.split(",") if value.strip() else ()
    if not isinstance(value, tuple | list):
        return value
    return tuple(" ".join(item.split()) if isinstance(item, str) else item for item in value)


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
    tuple[Annotated[str, matching(r"[\w.]+", "no name of a module")], ...],
    BeforeValidator(split),
    Some,
]
Counts = Annotated[tuple[Annotated[int, Field(ge=1)], ...], BeforeValidator(split), Some]
Positives = Annotated[tuple[Annotated[float, Field(gt=0)], ...], BeforeValidator(split), Some]
_CODE = r"\w([\w .-]{0,38}\w)?"


def _like(pattern: str, form: str) -> AfterValidator:
    """Refuse a text that is not of a form."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(f"write {form}")
        return text

    return AfterValidator(check)


def read_by(read: Callable[[T], object]) -> AfterValidator:
    """Refuse a value that a reader refuses with a `ConfigError`, in the same words."""

    def check(value: T) -> T:
        try:
            read(value)
        except ConfigError as error:
            raise ValueError(str(error)) from error
        return value

    return AfterValidator(check)


_Code = Annotated[str, _like(_CODE, "a diagnosis as letters, digits and _.- like mel")]
_Mapping = Annotated[
    str, _like(rf"{_CODE}( ?\+ ?{_CODE})* ?-> ?{_CODE}", "scc->bcc, or akiec+bcc->kc for several")
]
_FullName = Annotated[
    str, _like(rf"{_CODE} ?: ?[^,:\0-\x1f]{{1,100}}", "code:name, as kc:keratinocyte carcinoma")
]

Codes = Annotated[tuple[_Code, ...], BeforeValidator(listed)]
Sites = Annotated[tuple[str, ...], BeforeValidator(listed)]
Mappings = Annotated[tuple[_Mapping, ...], BeforeValidator(listed)]
FullNames = Annotated[tuple[_FullName, ...], BeforeValidator(listed)]
FilePath = Annotated[Path, AfterValidator(_named)]
OptionalPath = Annotated[FilePath | None, BeforeValidator(absent)]
