"""The table that the ISIC archive gives with any choice of its images (``metadata.csv``).

Source: https://www.isic-archive.com. Newer tables have a diagnosis in up to five columns, from the
coarsest, ``diagnosis_1`` (benign, malignant), to the finest; older ones have ``diagnosis``.
"""

from collections.abc import Iterator

from common.data.tables.cells import present
from common.data.tables.diagnoses import code_of
from common.data.tables.findings import Findings
from common.data.tables.folder import Folder
from common.data.tables.layout import FITZPATRICK, Reading, Record, only, records
from common.data.tables.text import Table
from common.task import BINARY

_LEVELS = tuple(f"diagnosis_{level}" for level in (5, 4, 3, 2, 1))
_FIELDS = {
    "image": ("isic_id",),
    "diagnosis": ("diagnosis",),
    "lesion": ("lesion_id",),
    "patient": ("patient_id",),
    "dx_type": ("diagnosis_confirm_type",),
    "age": ("age_approx",),
    "sex": ("sex",),
    "localization": ("anatom_site_general", "anatom_site_1", "anatom_site_special"),
    "source": ("attribution",),
    "fitzpatrick": FITZPATRICK,
    "skin_tone_class": ("skin_tone_class",),
}


class IsicArchive:
    """A table with ``isic_id`` and diagnoses; ``attribution`` is the site."""

    name = "ISIC archive"

    def recognises(self, folder: Folder) -> bool:
        """Tell whether there is such a table."""
        return bool(_fitting(folder))

    def read(self, folder: Folder, findings: Findings) -> Reading:
        """Read the table: of several columns with a diagnosis the finest that has a code."""
        table = only(_fitting(folder))
        return Reading(_rows(table, findings), [table.path.name])


def _fitting(folder: Folder) -> list[Table]:
    names = ("diagnosis", *_LEVELS)
    return [
        table
        for table in folder.tables()
        if table.has("isic_id") and any(table.has(name) for name in names)
    ]


def _rows(table: Table, findings: Findings) -> Iterator[Record]:
    for row, cells in records(table, _FIELDS, findings, _LEVELS):
        said = [text for name in _LEVELS if (text := present(cells.get(name, "")))]
        yield row._replace(diagnosis=_finest(said) or row.diagnosis)


def _finest(said: list[str]) -> str:
    """Return the first diagnosis that has a code, a group only where nothing else is said."""
    coded = (text for text in said if code_of(text) not in ("", *BINARY.codes))
    return next(coded, said[0] if said else "")
