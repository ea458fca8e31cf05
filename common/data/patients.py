"""What a user says of the patients behind images: in words, or in a table beside the images.

Nothing of it is guessed: what is none of the known values is refused, or named and left out.
"""

import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from math import isnan
from pathlib import Path
from typing import NamedTuple

from common.data.metadata import BLOCKS, OLDEST, UNKNOWN, About, Described, encode
from common.data.tables.cells import age as read_age
from common.data.tables.cells import present, without_ending, word
from common.data.tables.findings import Findings, Kind
from common.data.tables.layout import Record, records
from common.data.tables.text import read_table
from common.errors import ConfigError, DataError
from common.text import suggestion

# As published tables call them, and people.
_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "image": (
        *("image_id", "isic_id", "image_name", "img_id", "image"),
        *("filename", "file_name", "file", "name"),
    ),
    "age": ("age", "age_approx"),
    "sex": ("sex", "gender"),
    "localization": (
        *("localization", "localisation", "place", "region", "anatom_site_general"),
        *("anatom_site_general_challenge", "anatom_site_1", "anatom_site_special"),
    ),
}

_SEXES, _PLACES = BLOCKS["sex"][:-1], BLOCKS["localization"][:-1]
_YEARS = f"give years from 0 to {OLDEST:g}"

_ODD = {
    "age": Kind("age that is none, read as unknown", "warning", _YEARS),
    "sex": Kind("sex in no list, read as unknown", "warning", f"write {' or '.join(_SEXES)}"),
    "localization": Kind(
        "place in no list, read as unknown", "warning", f"write one of {', '.join(_PLACES)}"
    ),
}
_NO_NAME = Kind("row without the name of an image", "warning", "not used; fill it in")
_NO_ROW = Kind("image without a row", "warning", "answered without metadata; add its row")
_NO_IMAGE = Kind("row that names none of these images", "warning", "not used")
_TWO_ROWS = Kind("image with two rows that differ", "fatal", "keep the row that is right")
_TWO_IMAGES = Kind("row that names two images", "fatal", "write their folders too")

_log = logging.getLogger(__name__)


def known(columns: Sequence[str], row: Described) -> dict[str, float | str]:
    """Return what is known of a patient, by column; what counts as unknown is not there."""
    return {c: getattr(row, c) for c in columns if not encode([c], [row])[0, -1]}


def unlisted(columns: Sequence[str], row: Described) -> dict[str, str]:
    """Return the sexes and places of a patient that are in no list, by column."""
    texts = {c: present(word(str(getattr(row, c)))) for c in columns if c != "age"}
    return {c: text for c, text in texts.items() if text and text not in BLOCKS[c][:-1]}


def checked(about: Described) -> About:
    """Return what is said of a patient, as the lists write it; "", None and nan are unknown.

    Raises
    ------
    ConfigError
        If an age is none, or a sex or a place is in no list.
    """
    age = None if about.age is None or isnan(about.age) else float(about.age)
    if age is not None and not 0 <= age <= OLDEST:
        raise ConfigError(f"the age is {age:g}; {_YEARS}")
    return About(age, _listed("sex", about.sex), _listed("place", about.localization))


def stated(age: str = "", sex: str = "", localization: str = "") -> About:
    """Read what is said of a patient in words; "" and "unknown" say nothing.

    Raises
    ------
    ConfigError
        As of :func:`checked`.
    """
    years = read_age(age)
    if years.years is None and years.loose:
        raise ConfigError(f"the age is '{age}'; {_YEARS}")
    return checked(About(years.years, sex, localization))


def _listed(what: str, text: str) -> str:
    names = _SEXES if what == "sex" else _PLACES
    value = present(word(text))
    if value and value not in names:
        raise ConfigError(
            f"the {what} is '{text}'; write one of {', '.join(names)}{suggestion(value, names)}"
        )
    return value


class _Row(NamedTuple):
    """A row, with its image's name and that in parts as it is compared, folders first."""

    place: str
    name: str
    parts: tuple[str, ...]
    about: About


def read_patients(table: Path, images: Sequence[Path]) -> dict[Path, About]:
    """Return what a table says of images; rows and images that do not belong together are named.

    Its columns are those of the layouts in docs/data.md. A row names its image with or without
    folders and ending, in any case.

    Raises
    ------
    DataError
        If it is no such table, none of its rows names one of the images, or it contradicts itself.
    """
    findings = Findings()
    rows = list(_rows(table, findings))
    found = _matched(rows, images, findings)
    for defect in findings.defects():
        if defect.severity == "fatal":
            raise DataError(f"{table}: {defect}; {defect.remedy}")
    if images and not found:
        first = f"; {rows[0].place} names {rows[0].name}" if rows else ""
        raise DataError(f"{table}: no row names one of these images, such as {images[0]}{first}")
    for defect in findings.defects():
        if defect.severity == "warning":
            _log.warning("%s: %s; %s", table, defect, defect.remedy)
    return {path: row.about for path, row in found.items()}


def _rows(path: Path, findings: Findings) -> Iterator[_Row]:
    if not path.exists():
        raise DataError(f"{path} is not there; name a table")
    table = read_table(path)
    if not any(map(table.has, _COLUMNS["image"])):
        raise DataError(f"{path} has no column of images; name one image_id")
    if not any(table.has(name) for c in BLOCKS for name in _COLUMNS[c]):
        raise DataError(f"{path} has none of the columns {', '.join(BLOCKS)}; add one")
    for record, _ in records(table, _COLUMNS, findings):
        if parts := _parts(present(record.image)):
            yield _Row(record.place, record.image, parts, _about(record, findings))
        else:
            findings.add(_NO_NAME, record.place)


def _about(record: Record, findings: Findings) -> About:
    """Return what a row says; what is in no list goes to the findings and counts as unknown.

    A sex and a place stay as they are, so that an answer can name them.
    """
    about = UNKNOWN
    for column in BLOCKS:
        text = getattr(record, column)
        try:
            about = about._replace(**{column: getattr(stated(**{column: text}), column)})
        except ConfigError:
            findings.add(_ODD[column], f"{text} ({record.place})")
            if column != "age":
                about = about._replace(**{column: text})
    return about


def _parts(name: str) -> tuple[str, ...]:
    """Return a name in parts, as it is compared: without ending, in one case."""
    *folders, last = name.replace("\\", "/").split("/")
    stem = without_ending(last).casefold()
    return (*(f.casefold() for f in folders if f not in ("", ".", "..")), stem) if stem else ()


def _matched(rows: Sequence[_Row], images: Sequence[Path], findings: Findings) -> dict[Path, _Row]:
    """Return the row of each image that has one: the one that names most of its folders."""
    by_stem = defaultdict(list)
    for row in rows:
        by_stem[row.parts[-1]].append(row)
    found: dict[Path, _Row] = {}
    for path in dict.fromkeys(images):
        parts = _parts(str(path))
        fitting = [r for r in by_stem.get(parts[-1], ()) if parts[-len(r.parts) :] == r.parts]
        best = max(fitting, key=lambda row: len(row.parts), default=None)
        if best is None:
            findings.add(_NO_ROW, str(path))
            continue
        alike = [row for row in fitting if row.parts == best.parts]
        if len({row.about for row in alike}) > 1:
            findings.add(_TWO_ROWS, f"{path} ({', '.join(row.place for row in alike)})")
        found[path] = best
    _check_use(rows, found, findings)
    return found


def _check_use(rows: Sequence[_Row], found: Mapping[Path, _Row], findings: Findings) -> None:
    """Name the rows that belong to no image, or to several."""
    users = defaultdict(list)
    for path, row in found.items():
        users[row.parts].append(path)
    for row in rows:
        paths = users.get(row.parts, [])
        if not paths:
            findings.add(_NO_IMAGE, f"{row.name} ({row.place})")
        elif len(paths) > 1:
            findings.add(_TWO_IMAGES, f"{row.place} ({' and '.join(map(str, paths[:2]))})")
