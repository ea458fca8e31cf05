"""A data set's own layout, which ``data.toml`` beside the data describes (docs/data.md)."""

import tomllib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from common.data.tables.class_folders import ClassFolders
from common.data.tables.diagnoses import SYNONYMS
from common.data.tables.findings import Findings
from common.data.tables.folder import Folder
from common.data.tables.layout import Reading, only, records
from common.data.tables.text import Table, column_name
from common.errors import ConfigError, DataError
from common.storage.reading import read_text
from common.task import Task
from common.text import explain, matching

FILE = "data.toml"

_Text = Annotated[str, Field(min_length=1, max_length=200)]
_Code = Annotated[
    str, matching("[a-z][a-z0-9_]{0,29}", "a code has small letters, digits and _, at most 30")
]
_Field = Literal[
    "image",
    "diagnosis",
    "lesion",
    "patient",
    "site",
    "age",
    "age_months",
    "sex",
    "localization",
    "dx_type",
    "split",
    "fitzpatrick",
    "skin_tone_class",
]

_FIELDS = {"site": "source"}
"""Names that records have for some of them."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class OwnClass(_Strict):
    """One diagnosis.

    Attributes
    ----------
    name : its full name; that of a known code where it is not given.
    malignant : whether it is malignant; what is known of the code where it is not given.
    words : what the table calls it, beside its code.
    """

    name: _Text | None = None
    malignant: bool | None = None
    words: list[_Text] = Field(default=[], alias="from")


class OwnLayout(_Strict):
    """What ``data.toml`` says.

    Attributes
    ----------
    table : name of the table's file; the only table where it is not given; none with `folders`.
    folders : whether the images lie in one folder for each class, and there is no table.
    pattern : name of an image's file without ending, ``{image}`` for what the table says.
    columns : columns by what they hold; `image` and `diagnosis` must be there for a table.
    classes : the diagnoses by their codes; those that occur where none is given.
    """

    table: _Text | None = None
    folders: bool = False
    pattern: _Text = "{image}"
    columns: dict[_Field, _Text] = {}
    classes: dict[_Code, OwnClass] = {}

    @field_validator("pattern")
    @classmethod
    def _holds_image(cls, pattern: str) -> str:
        if pattern.count("{image}") != 1:
            raise ValueError("write {image} once")
        return pattern

    @cached_property
    def task(self) -> Task | None:
        """The task of the classes.

        Raises
        ------
        ConfigError
            If they make none.
        """
        if not self.classes:
            return None
        named = {code: each.name for code, each in self.classes.items() if each.name}
        plain = Task.of(tuple(self.classes), named)
        malignant = [
            code
            for code, each in self.classes.items()
            if (code in plain.malignant if each.malignant is None else each.malignant)
        ]
        mapping = {
            word: code
            for code, each in self.classes.items()
            for word in each.words
            if word not in self.classes
        }
        return Task(plain.codes, plain.names, tuple(malignant), tuple(sorted(mapping.items())))

    @cached_property
    def codes(self) -> dict[str, str]:
        """Codes by the words for them in lower case; also known synonyms of the classes.

        Raises
        ------
        ConfigError
            If a word stands for two classes.
        """
        if not self.classes:
            return dict(SYNONYMS)
        codes = {word: code for word, code in SYNONYMS.items() if code in self.classes}
        own: dict[str, str] = {}
        for code, each in self.classes.items():
            for word in (code, *each.words):
                key = " ".join(word.lower().split())
                if own.setdefault(key, code) != code:
                    raise ConfigError(f"'{word}' stands for {own[key]} and for {code}")
        return {**codes, **own}


class Own:
    """A folder with ``data.toml``."""

    name = FILE

    def recognises(self, folder: Folder) -> bool:
        """Tell whether the file is there."""
        return folder.named(FILE) is not None

    def read(self, folder: Folder, findings: Findings) -> Reading:
        """Read the table or the folders as the file says."""
        path = folder.named(FILE)
        assert path is not None  # it was recognised
        own = _parsed(path)
        if own.folders:
            return ClassFolders(own.codes, own.task).read(folder, findings)
        columns: dict[str, Sequence[str]] = {
            _FIELDS.get(what, what): (column_name(column),) for what, column in own.columns.items()
        }
        if missing := {"image", "diagnosis"} - columns.keys():
            raise DataError(f"{path}: [columns] lacks {' and '.join(sorted(missing))}; add it")
        table = _table(folder, own, path)
        table.require(*(names[0] for names in columns.values()))
        rows = (record for record, _ in records(table, columns, findings))
        return Reading(rows, [table.path.name], own.codes, own.task, pattern=own.pattern)


def _parsed(path: Path) -> OwnLayout:
    try:
        own = OwnLayout.model_validate(tomllib.loads(read_text(path)))
        _ = own.task, own.codes
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise DataError(f"{path} is no TOML ({error}); correct it") from error
    except ValidationError as error:
        of_class = [field.alias or name for name, field in OwnClass.model_fields.items()]
        sections = {"": OwnLayout.model_fields, "classes": of_class}
        raise DataError(f"{path}: {explain(error, sections)} (docs/data.md)") from error
    except ConfigError as error:
        raise DataError(f"{path}: {error}") from error
    return own


def _table(folder: Folder, own: OwnLayout, path: Path) -> Table:
    if own.table is None:
        tables = list(folder.tables())
        if not tables:
            raise DataError(f'{path}: there is no table beside it; name it by table = "..."')
        return only(tables)
    if Path(own.table).name != own.table:
        raise DataError(f"{path}: table is '{own.table}'; name a file that lies beside it")
    return folder.table(path.parent / own.table)
