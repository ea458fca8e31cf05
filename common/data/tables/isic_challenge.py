"""The ISIC challenges 2018 (Task 3) and 2019: one column of 0 and 1 for each diagnosis.

Sources: https://challenge.isic-archive.com/data/; Codella et al., arXiv:1902.03368 (2019);
Combalia et al., "BCN20000", arXiv:1908.02288 (2019).
"""

import re
from collections.abc import Iterator, Mapping, Sequence

from common.data.tables.cells import present, without_ending
from common.data.tables.diagnoses import code_of
from common.data.tables.findings import (
    ALL_ZERO,
    NOT_ONE_HOT,
    TWO_ONES,
    UNKNOWN_DIAGNOSIS,
    Findings,
)
from common.data.tables.folder import Folder
from common.data.tables.layout import Reading, Record
from common.data.tables.text import Table
from common.task import HAM10000, ISIC2019, Task

_ABOUT = {
    "lesion": ("lesion_id",),
    "patient": ("patient_id",),
    "dx_type": ("diagnosis_confirm_type",),
    "age": ("age_approx",),
    "sex": ("sex",),
    "localization": ("anatom_site_general",),
}
_NUMBER = re.compile(r"[01]([.,]0*)?", re.ASCII)


class IsicChallenge:
    """Ground truth of one of the two challenges, with tables about images beside it or not.

    Parameters
    ----------
    name : what `fedderm data check` calls it.
    marks : the columns that all of its tables of ground truth have.
    task : its diagnoses.
    """

    def __init__(self, name: str, marks: Sequence[str], task: Task) -> None:
        self.name, self._marks, self._task = name, tuple(marks), task

    def recognises(self, folder: Folder) -> bool:
        """Tell whether there is a table with these diagnoses for columns."""
        return bool(self._truths(folder))

    def read(self, folder: Folder, findings: Findings) -> Reading:
        """Read all tables of ground truth, and what others say of the same images."""
        truths = self._truths(folder)
        about: dict[str, dict[str, str]] = {}
        beside = [table for table in folder.tables() if _is_about(table)]
        for table in beside:
            _read_about(table, about, findings)
        left_out: list[str] = []
        records = [
            record for table in truths for record in _records(table, about, left_out, findings)
        ]
        names = [table.path.name for table in (*truths, *beside)]
        return Reading(records, names, task=self._task, left_out=left_out)

    def _truths(self, folder: Folder) -> list[Table]:
        return [table for table in folder.tables() if self._is_truth(table)]

    def _is_truth(self, table: Table) -> bool:
        exact = ("akiec" in table.header) == ("akiec" in self._marks)
        return table.has("image", *self._marks) and exact


ISIC_2018 = IsicChallenge(
    "ISIC 2018 Task 3", ("mel", "nv", "bcc", "akiec", "bkl", "df", "vasc"), HAM10000
)
ISIC_2019 = IsicChallenge(
    "ISIC 2019", ("mel", "nv", "bcc", "ak", "bkl", "df", "vasc", "scc"), ISIC2019
)


def _is_about(table: Table) -> bool:
    columns = [column for columns in _ABOUT.values() for column in columns]
    no_truth = not table.has("mel", "nv")
    return no_truth and table.has("image") and any(column in table.header for column in columns)


def _key(image: str) -> str:
    """Return what an image is called whether or not its file was reduced."""
    return without_ending(image).removesuffix("_downsampled")


def _read_about(table: Table, about: dict[str, dict[str, str]], findings: Findings) -> None:
    columns = {field: names[0] for field, names in _ABOUT.items() if names[0] in table.header}
    for _, cells in table.rows(["image", *columns.values()], findings):
        said = about.setdefault(_key(cells.get("image", "")), {})
        for field, name in columns.items():
            if cells.get(name):
                said.setdefault(field, cells[name])


def _records(
    table: Table,
    about: Mapping[str, Mapping[str, str]],
    left_out: list[str],
    findings: Findings,
) -> Iterator[Record]:
    marks = [name for name in table.header if name == "unk" or code_of(name)]
    for place, cells in table.rows(["image", *marks], findings):
        image = cells.get("image", "")
        marked = [name for name in marks if _is_one(cells.get(name, ""))]
        if odd := [name for name in marks if not _NUMBER.fullmatch(cells.get(name, ""))]:
            findings.add(NOT_ONE_HOT, f"{image} {odd[0]} {cells.get(odd[0], '')!r} ({place})")
        elif not marked:
            findings.add(ALL_ZERO, f"{image} ({place})")
        elif len(marked) > 1:
            findings.add(TWO_ONES, f"{image} {' and '.join(marked)} ({place})")
        elif marked == ["unk"]:
            findings.add(UNKNOWN_DIAGNOSIS, f"{image} unk ({place})")
        else:
            yield Record(place, image, marked[0], **about.get(_key(image), {}))
            continue
        left_out.append(image)


def _is_one(text: str) -> bool:
    return bool(present(text)) and text[0] == "1" and bool(_NUMBER.fullmatch(text))
