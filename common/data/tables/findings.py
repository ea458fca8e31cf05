"""What can be wrong with a data folder: each kind with its severity and its remedy."""

from collections import defaultdict
from typing import NamedTuple

from common.data.image import Defect, Severity


class Kind(NamedTuple):
    """A kind of defect, and what to do about it."""

    text: str
    severity: Severity
    remedy: str


BROKEN_FOLDER = Kind(
    "folder or archive that cannot be read", "fatal", "unpack or download it again"
)
DUPLICATE_IMAGE = Kind("duplicate image_id", "fatal", "keep the row that is right")
LONG_ROW = Kind(
    "row that has more cells than there are columns",
    "fatal",
    "put quotes around cells that hold the delimiter",
)
SPREADSHEET_ID = Kind(
    "id that a spreadsheet turned into a number",
    "fatal",
    "import the original table with this column as text, and save it again",
)
TWO_DIAGNOSES = Kind(
    "lesion with two diagnoses", "fatal", "correct the diagnosis or the lesion of its rows"
)
TWO_SPLITS = Kind("lesion in two splits", "fatal", "give all of its images one split")
ODD_SPLIT = Kind(
    "split that is neither test nor a fold number", "fatal", "write test, 0, 1, ... in every row"
)
NO_IMAGE = Kind("row without an image", "fatal", "restore the image, or remove the row")
NO_ROWS = Kind("table without a row that can be used", "fatal", "mend the rows that are named")

NO_IMAGE_ID = Kind("row without an image_id", "warning", "left out; fill it in")
NO_DIAGNOSIS = Kind("row without a diagnosis", "warning", "left out; fill it in")
ALL_ZERO = Kind("row in which no diagnosis is 1", "warning", "left out; mark one")
TWO_ONES = Kind("row in which several diagnoses are 1", "warning", "left out; mark one")
NOT_ONE_HOT = Kind("row with a mark that is neither 0 nor 1", "warning", "left out; mark one by 1")
CONTRADICTION = Kind(
    "row whose columns contradict each other", "warning", "left out; correct one of them"
)
UNKNOWN_DIAGNOSIS = Kind(
    "unknown diagnosis", "warning", "left out; map it to a class in data.toml (docs/data.md)"
)
GROUP_BESIDE_DIAGNOSES = Kind(
    "group of diagnoses beside single ones",
    "warning",
    "left out; give the diagnosis, or group all in data.toml",
)
PATIENT_AS_LESION = Kind(
    "image whose lesion is unknown: patient and diagnosis stand for it",
    "warning",
    "fill in lesion_id where it is known",
)
IMAGE_AS_LESION = Kind(
    "image whose lesion and patient are unknown: it is a lesion of its own",
    "warning",
    "fill in lesion_id or patient_id where they are known",
)
NO_ROW = Kind("image without a row", "warning", "not used; add its row, or remove it")
ODD_SOURCE = Kind(
    "source that is no name of a site", "warning", "rename it, else it is no natural site"
)

LOOSE_TEXT = Kind("table read loosely", "note", "")
LOOSE_COLUMN = Kind("column read under another spelling", "note", "")
EMPTY_ROW = Kind("empty row", "note", "")
ROW_TWICE = Kind("row that stands twice; it is read once", "note", "")
SHORT_ROW = Kind("row with fewer cells than there are columns, read as empty", "note", "")
LOOSE_ID = Kind("id read without its folder or ending", "note", "")
LOOSE_FILE = Kind("image found under another spelling", "note", "")
LOOSE_DIAGNOSIS = Kind("diagnosis read as a code", "note", "")
LOOSE_AGE = Kind("age read as a number", "note", "")
ODD_AGE = Kind("age that is none, read as missing", "note", "")
AGE_IN_MONTHS = Kind("column of ages in months, read as years", "note", "")
NOT_YEARS = Kind(
    "column of ages that are no years",
    "warning",
    "read as missing; call it age_months if it holds months, else write years",
)
LOOSE_WORD = Kind("word read as another", "note", "")
UNLISTED_WORD = Kind(
    "word that is in no list, counted as other, as missing where a model takes it in", "note", ""
)
ODD_TONE = Kind("skin tone that is none, read as missing", "note", "")
UNREAD_COLUMN = Kind("column that is not read", "note", "")
FILE_TWICE = Kind("image that lies there twice; the first is read", "note", "")
OTHER_LAYOUT = Kind("layout that fits too and is not read", "note", "")

_RANK = {"fatal": 0, "warning": 1, "note": 2}


class Findings:
    """Gathers what is wrong with a folder, by kind."""

    def __init__(self) -> None:
        self._offenders: dict[Kind, list[str]] = defaultdict(list)

    def add(self, kind: Kind, *offenders: str) -> None:
        """Note what has a defect of this kind."""
        if offenders:
            self._offenders[kind].extend(offenders)

    def add_once(self, kind: Kind, offender: str) -> None:
        """Note something that many rows share."""
        if offender not in self._offenders[kind]:
            self._offenders[kind].append(offender)

    def defects(self) -> tuple[Defect, ...]:
        """Return all of it, what is fatal first."""
        found = sorted(self._offenders.items(), key=lambda item: _RANK[item[0].severity])
        return tuple(
            Defect(kind.text, kind.severity, tuple(offenders), kind.remedy)
            for kind, offenders in found
        )
