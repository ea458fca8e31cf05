"""ISIC 2020: benign or malignant, with patients.

Source: Rotemberg et al., "A patient-centric dataset of images and metadata for identifying
melanomas using clinical context", Scientific Data 8:34 (2021), doi:10.34970/2020-ds01.
"""

from collections.abc import Iterator

from common.data.tables.cells import present
from common.data.tables.findings import CONTRADICTION, Findings
from common.data.tables.folder import Folder
from common.data.tables.layout import Reading, Record, only, records
from common.data.tables.text import Table
from common.task import BINARY

_TARGETS = {"0": "benign", "1": "malignant"}
_FIELDS = {
    "image": ("image_name",),
    "diagnosis": ("benign_malignant",),
    "lesion": ("lesion_id",),
    "patient": ("patient_id",),
    "age": ("age_approx",),
    "sex": ("sex",),
    "localization": ("anatom_site_general_challenge",),
}


class Isic2020:
    """A table with ``image_name``, ``patient_id`` and ``target`` or ``benign_malignant``."""

    name = "ISIC 2020"

    def recognises(self, folder: Folder) -> bool:
        """Tell whether there is the published table."""
        return bool(_fitting(folder))

    def read(self, folder: Folder, findings: Findings) -> Reading:
        """Read the table; where ``target`` and ``benign_malignant`` differ, a row is left out."""
        table = only(_fitting(folder))
        left_out: list[str] = []
        rows = list(_rows(table, left_out, findings))
        return Reading(rows, [table.path.name], task=BINARY, left_out=left_out)


def _fitting(folder: Folder) -> list[Table]:
    truth = ("target", "benign_malignant")
    return [
        table
        for table in folder.tables()
        if table.has("image_name", "patient_id") and any(table.has(name) for name in truth)
    ]


def _rows(table: Table, left_out: list[str], findings: Findings) -> Iterator[Record]:
    for row, cells in records(table, _FIELDS, findings, ["target"]):
        target = present(cells.get("target", ""))
        named = _TARGETS.get(target.replace(",", ".").removesuffix(".0"), target)
        said = present(row.diagnosis)
        if said and named and said.lower() != named:
            findings.add(CONTRADICTION, f"{row.image} {said} and {target} ({row.place})")
            left_out.append(row.image)
        else:
            yield row._replace(diagnosis=said or named)
