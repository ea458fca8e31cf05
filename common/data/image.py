"""What a data folder is made of: images with their rows, where they lie, and what is wrong."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from common.task import HAM10000, Task
from common.text import printable

Severity = Literal["fatal", "warning", "note"]
"""Whether a folder cannot be used, some of it is left out, or something was read loosely."""


PSEUDO_LABEL = "pseudo-label"
"""``dx_type`` of an image whose diagnosis a model gave: it is trained on, and nothing else."""

TRAIN = "train"
"""Split of these images: no fold, so that nothing is chosen, calibrated or judged on them."""


@dataclass(frozen=True)
class Image:
    """One image with what its row says.

    ``dx`` is a code of the data set's task. ``age`` is in years, None where missing; ``source``
    is the site or the column ``dataset``, ``split`` is "test" or a fold number, ``patient_id``
    names a person, and ``skin_tone`` is the table's own, one of `common.data.groups` or missing:
    all four "" where the table does not have the column.
    """

    image_id: str
    lesion_id: str
    dx: str
    dx_type: str
    age: float | None
    sex: str
    localization: str
    source: str = ""
    split: str = ""
    patient_id: str = ""
    skin_tone: str = ""


class Location(NamedTuple):
    """Where an image lies: a folder or a zip file, and the name in it."""

    container: Path
    member: str


@dataclass(frozen=True)
class Defect:
    """One kind of defect in a data folder, with everything that has it.

    Attributes
    ----------
    kind : what is wrong.
    offenders : what has it, with file and row where it has them.
    remedy : what to do about it.
    """

    kind: str
    severity: Severity
    offenders: tuple[str, ...]
    remedy: str = ""

    def __str__(self) -> str:
        first = ", ".join(printable(name)[:200] for name in self.offenders[:3])
        return f"{len(self.offenders)} x {self.kind}: {first}{', ...' * (len(self.offenders) > 3)}"


@dataclass(frozen=True)
class Scan:
    """The content of a folder, usable or not; no image was decoded.

    Attributes
    ----------
    images : the rows that can be used, sorted by `image_id`.
    left_out : images of rows whose diagnosis cannot be used; it is the table's own text.
    files : where each image lies, by its id; also images without a row.
    layout : as what the folder was read, with the names of the tables.
    task : the diagnoses of the data set.
    """

    images: tuple[Image, ...]
    files: Mapping[str, Location] = field(repr=False)
    defects: tuple[Defect, ...]
    layout: str = ""
    task: Task = HAM10000
    left_out: tuple[Image, ...] = ()
