"""PAD-UFES-20: photographs of smartphones with patients and lesions.

Source: Pacheco et al., "PAD-UFES-20: a skin lesion dataset composed of patient data and clinical
images collected from smartphones", Data in Brief 32:106221 (2020), doi:10.17632/zr7vgbcyr2.1.
"""

from common.data.tables.cells import without_ending
from common.data.tables.findings import Findings
from common.data.tables.folder import Folder
from common.data.tables.layout import FITZPATRICK, Reading, only, records
from common.data.tables.text import Table
from common.task import Task

PAD_UFES = Task.of(("akiec", "bcc", "bkl", "mel", "nv", "scc"))
"""Its six diagnoses; SCC includes Bowen's disease, which HAM10000 counts as ``akiec``."""

_FIELDS = {
    "image": ("img_id",),
    "diagnosis": ("diagnostic",),
    "lesion": ("lesion_id",),
    "patient": ("patient_id",),
    "age": ("age",),
    "sex": ("gender",),
    "localization": ("region",),
    "fitzpatrick": FITZPATRICK,
}
_CODES = {"ack": "akiec", "bcc": "bcc", "mel": "mel", "nev": "nv", "scc": "scc", "sek": "bkl"}


class PadUfes:
    """A table with ``img_id`` and ``diagnostic``."""

    name = "PAD-UFES-20"

    def recognises(self, folder: Folder) -> bool:
        """Tell whether there is the published table."""
        return bool(_fitting(folder))

    def read(self, folder: Folder, findings: Findings) -> Reading:
        """Read the table; whether a lesion was biopsied gives its diagnosis away and is not."""
        table = only(_fitting(folder))
        rows = (
            record._replace(image=without_ending(record.image))
            for record, _ in records(table, _FIELDS, findings)
        )
        return Reading(rows, [table.path.name], _CODES, PAD_UFES)


def _fitting(folder: Folder) -> list[Table]:
    return [table for table in folder.tables() if table.has("img_id", "diagnostic")]
