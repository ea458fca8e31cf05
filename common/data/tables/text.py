"""Tables as programs save them: any usual delimiter and encoding, read row by row.

A spreadsheet's number of a row is the row's: the header is row 1.
"""

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from common.data.tables.findings import (
    EMPTY_ROW,
    LONG_ROW,
    LOOSE_COLUMN,
    LOOSE_TEXT,
    SHORT_ROW,
    Findings,
)
from common.errors import DataError
from common.storage.reading import open_file

MOST_BYTES = 128 * 2**20
MOST_ROWS = 500_000

_LONGEST_LINE = 100_000
_MOST_LINES_A_ROW = 200
_MARKS = ((b"\xef\xbb\xbf", "utf-8", "a byte order mark"), (b"\xff\xfe", "utf-16-le", "UTF-16"))
_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_WORKBOOKS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")
_SEPARATOR_LINE = re.compile(r'"?sep=([,;\t|])"?', re.IGNORECASE)


class Row(NamedTuple):
    """A row's cells by the columns that were asked for, "" where it has none, and its place."""

    place: str
    cells: dict[str, str]


@dataclass(frozen=True)
class Table:
    """A table's text; its rows are read when they are asked for.

    Attributes
    ----------
    header : the columns, as of :func:`column_name`.
    loose : how the text differs from UTF-8 with commas.
    """

    path: Path
    text: str
    delimiter: str
    header: tuple[str, ...]
    loose: tuple[str, ...]

    def has(self, *columns: str) -> bool:
        """Tell whether the table has these columns."""
        return set(columns) <= set(self.header)

    def require(self, *columns: str) -> None:
        """Refuse a table that lacks a column.

        Raises
        ------
        DataError
            It names the columns that the table has, where these are few.
        """
        if missing := [column for column in columns if column not in self.header]:
            raise DataError(f"{self.path} lacks the columns {', '.join(missing)}; add them")

    def rows(self, columns: Sequence[str], findings: Findings) -> Iterator[Row]:
        """Yield the rows with the cells of some columns; what is wrong goes to the findings.

        A row with more filled cells than there are columns is not yielded.

        Raises
        ------
        DataError
            If a column stands twice, there is no row, or the text is no table.
        """
        for column in columns:
            if self.header.count(column) > 1:
                raise DataError(f"{self.path} has the column {column} twice; keep the right one")
        where = {c: self.header.index(c) for c in columns if c in self.header}
        self._tell(where, findings)
        number = 1
        for number, cells in enumerate(_after_header(self), 2):
            place = f"{self.path.name} row {number}"
            if number > MOST_ROWS + 1:
                raise DataError(f"{self.path} has more than {MOST_ROWS} rows; divide it")
            if not any(cell.strip() for cell in cells):
                findings.add(EMPTY_ROW, place)
            elif any(cell.strip() for cell in cells[len(self.header) :]):
                findings.add(LONG_ROW, place)
            else:
                if len(cells) < len(self.header):
                    findings.add(SHORT_ROW, place)
                filled = {c: cells[i].strip() for c, i in where.items() if i < len(cells)}
                yield Row(place, filled)
        if number == 1:
            raise DataError(f"{self.path} has no rows; restore the published file")

    def _tell(self, where: Mapping[str, int], findings: Findings) -> None:
        for how in self.loose:
            findings.add(LOOSE_TEXT, f"{self.path.name} ({how})")
        cells = next(_records(self.text, self.delimiter))
        for name, i in where.items():
            if cells[i].lower() != name:
                findings.add(LOOSE_COLUMN, f"{cells[i]!r} as {name} in {self.path.name}")


def column_name(text: str) -> str:
    """Return a column's name in lower case, with _ for blanks and hyphens between its words."""
    return "_".join(re.split(r"[\s_-]+", text.strip().lower()))


def read_table(path: Path) -> Table:
    """Read a table's text and its header.

    Raises
    ------
    DataError
        If it cannot be read, is too large, or is no text with a header.
    """
    try:
        with open_file(path) as file:
            data = file.read(MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            raise DataError(f"{path} is larger than {MOST_BYTES >> 20} MiB; divide it")
        if data.startswith(_WORKBOOKS):
            raise DataError(f"{path} is an Excel workbook; save it as CSV")
        text, loose = decoded(data)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is no table ({error}); restore the published file") from error
    del data
    if "\0" in text:  # an array of texts would drop it from the end of one
        raise DataError(f"{path} is no table (it has a NUL character); restore the published file")
    return _table(path, text, loose)


def decoded(data: bytes) -> tuple[str, tuple[str, ...]]:
    r"""Return a text with ``\n`` at the ends of its lines, and how its bytes are not plain UTF-8.

    Raises
    ------
    UnicodeDecodeError
        If it is neither UTF-8, UTF-16 nor Windows-1252.
    """
    encoding, how = _encoding(data)
    text = data.decode(encoding).removeprefix("\ufeff")
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text, (how,) if how else ()


def _encoding(data: bytes) -> tuple[str, str]:
    for mark, encoding, how in (*_MARKS, (b"\xfe\xff", "utf-16-be", "UTF-16")):
        if data.startswith(mark):
            return encoding, how
    # Of Latin letters in UTF-16, every second byte is 0.
    zeros = [data[start:2000:2].count(0) for start in (0, 1)]
    least = 0.4 * len(data[:2000]) / 2
    if max(zeros) > least and not min(zeros):
        return ("utf-16-le" if zeros[1] else "utf-16-be"), "UTF-16"
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return "cp1252", "Windows-1252"
    return "utf-8", ""


def _table(path: Path, text: str, loose: tuple[str, ...]) -> Table:
    first, _, rest = text.partition("\n")
    if stated := _SEPARATOR_LINE.fullmatch(first.strip(" ")):
        text, delimiter = rest, stated[1]
        first = text.partition("\n")[0]
    else:
        delimiter = max(_DELIMITERS, key=first.count)
    try:
        cells = next(_records(text, delimiter), [])
    except csv.Error as error:
        raise DataError(f"{path} is no table ({error}); restore the published file") from error
    if delimiter in ";|":
        loose = (*loose, f"{_DELIMITERS[delimiter]} between cells")
    header = tuple(map(column_name, cells))
    return Table(path, text, delimiter, header, loose)


def _after_header(table: Table) -> Iterator[list[str]]:
    records = _records(table.text, table.delimiter)
    next(records, None)
    try:
        yield from records
    except csv.Error as error:
        raise DataError(
            f"{table.path} is no table ({error}); restore the published file"
        ) from error


def _records(text: str, delimiter: str) -> Iterator[list[str]]:
    lines = _Lines(text)
    for cells in csv.reader(lines, delimiter=delimiter):
        lines.since = 0
        yield cells


class _Lines:
    """The lines of a text, one at a time: a list of them would need a multiple of its memory."""

    def __init__(self, text: str) -> None:
        self._text, self._start, self.since = text, 0, 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if self._start >= len(self._text):
            raise StopIteration
        end = self._text.find("\n", self._start) + 1 or len(self._text)
        self.since += 1
        if end - self._start > _LONGEST_LINE:
            raise csv.Error(f"a line is longer than {_LONGEST_LINE} characters")
        if self.since > _MOST_LINES_A_ROW:
            raise csv.Error(f"a row runs over {_MOST_LINES_A_ROW} lines; a quote is not closed")
        line, self._start = self._text[self._start : end], end
        return line
