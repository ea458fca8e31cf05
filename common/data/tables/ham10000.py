"""HAM10000 as published, and tables that hospitals write like it.

Source: Tschandl, Rosendahl, Kittler, "The HAM10000 dataset", Scientific Data 5:180161 (2018),
doi:10.7910/DVN/DBW86T.
"""

import csv
from collections.abc import Iterable
from pathlib import Path

from common.data.image import Image
from common.data.tables.findings import UNREAD_COLUMN, Findings
from common.data.tables.folder import Folder
from common.data.tables.layout import AGE_MONTHS, FITZPATRICK, Reading, only, records
from common.data.tables.text import Table

METADATA_FILE = "HAM10000_metadata.csv"

_NAMES = ("ham10000_metadata.csv", "ham10000_metadata.tab", "ham10000_metadata")
_COLUMNS = ("lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization")
_TONES = {"fitzpatrick": "fitzpatrick ", "skin_tone_class": "milk10k "}
"""Columns of skin tone, and how an image's tone on the scale of each begins."""
_OPTIONAL = ("split", "patient_id", *_TONES)
_FIELDS = {
    "image": ("image_id",),
    "diagnosis": ("dx",),
    "lesion": ("lesion_id",),
    "patient": ("patient_id",),
    "dx_type": ("dx_type",),
    "age": ("age",),
    "sex": ("sex",),
    "localization": ("localization",),
    "source": ("dataset",),
    "split": ("split",),
    "age_months": AGE_MONTHS,
    "fitzpatrick": FITZPATRICK,
    "skin_tone_class": ("skin_tone_class",),
}


class Ham10000:
    """A table with the columns ``image_id`` and ``dx``, named as published or not."""

    name = "HAM10000"

    def recognises(self, folder: Folder) -> bool:
        """Tell whether there is the published table, or one with its columns."""
        return folder.named(*_NAMES) is not None or bool(_alike(folder))

    def read(self, folder: Folder, findings: Findings) -> Reading:
        """Read the published table where it is there, else the one with its columns."""
        path = folder.named(*_NAMES)
        table = folder.table(path) if path else only(_alike(folder))
        table.require("image_id", "dx")
        known = {name for names in _FIELDS.values() for name in names}
        findings.add(UNREAD_COLUMN, *(name for name in table.header if name and name not in known))
        rows = (record for record, _ in records(table, _FIELDS, findings))
        return Reading(rows, [table.path.name])


def write_metadata(folder: Path, images: Iterable[Image]) -> None:
    """Write ``HAM10000_metadata.csv`` with the column ``dataset``, and others that are filled."""
    rows = [_row(image) for image in images]
    filled = [name for name in _OPTIONAL if any(row[name] for row in rows)]
    extra = ("dataset", *filled)
    with open(folder / METADATA_FILE, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow((*_COLUMNS, *extra))
        for row in rows:
            writer.writerow([row[column] for column in (*_COLUMNS, *extra)])


def _row(image: Image) -> dict[str, object]:
    tone = image.skin_tone
    tones = {
        column: tone.removeprefix(scale) if tone.startswith(scale) else ""
        for column, scale in _TONES.items()
    }
    return {**vars(image), "dataset": image.source, **tones}


def _alike(folder: Folder) -> list[Table]:
    return [table for table in folder.tables() if table.has("image_id", "dx")]
