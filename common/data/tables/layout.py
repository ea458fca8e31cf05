"""What a layout is: it recognises a folder, and reads its tables into records."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from common.data.image import Location
from common.data.tables.diagnoses import SYNONYMS
from common.data.tables.findings import Findings
from common.data.tables.folder import Folder
from common.data.tables.text import Table
from common.errors import DataError
from common.task import Task

AGE_MONTHS = ("age_months", "age_in_months", "age (months)", "age_month", "alter_monate")
"""Columns whose name says that they hold ages in months."""
FITZPATRICK = ("fitzpatrick_skin_type", "fitzpatrick", "fitspatrick", "fitzpatrick_scale")
"""Columns of Fitzpatrick's type, PAD-UFES-20's spelling among them."""


class Record(NamedTuple):
    """A row as its table has it, under one set of names; "" what the table does not have.

    Attributes
    ----------
    place : file and row.
    image : the image's name, perhaps with folder and ending.
    diagnosis : the diagnosis as the table writes it.
    age, age_months : in years, and in months.
    fitzpatrick, skin_tone_class : skin tone as Fitzpatrick's type, and as MILK10k has it.
    """

    place: str
    image: str
    diagnosis: str
    lesion: str = ""
    patient: str = ""
    dx_type: str = ""
    age: str = ""
    sex: str = ""
    localization: str = ""
    source: str = ""
    split: str = ""
    age_months: str = ""
    fitzpatrick: str = ""
    skin_tone_class: str = ""


@dataclass(frozen=True)
class Reading:
    """What a layout reads of a folder.

    Attributes
    ----------
    records : the rows.
    tables : names of the tables that they are from.
    codes : codes of diagnoses, by the words for them in lower case.
    task : the diagnoses of the data set; None for those that occur.
    files : images by name, where a layout names them otherwise than by the files' names.
    left_out : images, by name, whose rows the layout itself left out.
    pattern : name of an image's file without ending, with ``{image}`` for what the table says.
    """

    records: Iterable[Record]
    tables: Sequence[str]
    codes: Mapping[str, str] = field(default_factory=lambda: SYNONYMS)
    task: Task | None = None
    files: Mapping[str, Location] | None = None
    left_out: Sequence[str] = ()
    pattern: str = "{image}"


class Layout(Protocol):
    """A form in which data sets are published or kept."""

    @property
    def name(self) -> str:
        """What `fedderm data check` calls it."""

    def recognises(self, folder: Folder) -> bool:
        """Tell by the names and headers of its tables whether a folder has this layout."""

    def read(self, folder: Folder, findings: Findings) -> Reading:
        """Read the rows; what is wrong with some of them goes to the findings.

        Raises
        ------
        DataError
            If a table cannot be used as a whole.
        """


def only(tables: Sequence[Table]) -> Table:
    """Return the one table of a layout.

    Raises
    ------
    DataError
        If there are several.
    """
    if len(tables) > 1:
        names = " and ".join(str(table.path) for table in tables[:2])
        raise DataError(f"{names} both hold images and diagnoses; keep the right one there")
    return tables[0]


def records(
    table: Table,
    columns: Mapping[str, Sequence[str]],
    findings: Findings,
    extra: Sequence[str] = (),
) -> Iterator[tuple[Record, Mapping[str, str]]]:
    """Yield a table's rows, and with each the cells of all columns that were asked for.

    Parameters
    ----------
    columns : for each field of `Record`, the columns that may hold it; the first filled one does.
    extra : more columns.
    """
    named = [name for names in columns.values() for name in names]
    wanted = [name for name in dict.fromkeys([*named, *extra]) if name in table.header]
    here = {name: [c for c in names if c in wanted] for name, names in columns.items()}
    for place, cells in table.rows(wanted, findings):
        filled = {
            name: next((cell for c in names if (cell := cells.get(c))), "")
            for name, names in here.items()
            if names
        }
        yield Record(**{"diagnosis": "", **filled, "place": place}), cells
