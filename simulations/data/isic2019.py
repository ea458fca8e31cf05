"""Writes tables in the published form of ISIC 2019."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

from common.data.image import Image

INPUT_FOLDER = "ISIC_2019_Training_Input"
"""Folder of its images, ``{image_id}.jpg``."""

_TRUTH = "ISIC_2019_Training_GroundTruth.csv"
_METADATA = "ISIC_2019_Training_Metadata.csv"
_COLUMNS = ("mel", "nv", "bcc", "akiec", "bkl", "df", "vasc", "scc")
_PUBLISHED = {"akiec": "AK"}


def write_isic2019(folder: Path, images: Iterable[Image]) -> None:
    """Write ground truth and metadata; the images themselves belong into `INPUT_FOLDER`.

    Ages, sex and places that are missing are empty, as published. The form has no sites, no splits
    and no patients.

    Parameters
    ----------
    images : rows whose diagnoses are of `common.task.ISIC2019`.
    """
    rows = list(images)
    marks = [_PUBLISHED.get(code, code.upper()) for code in _COLUMNS]
    truth = [[row.image_id, *(float(row.dx == code) for code in _COLUMNS), 0.0] for row in rows]
    _write(folder / _TRUTH, ["image", *marks, "UNK"], truth)
    about = [
        [
            row.image_id,
            "" if row.age is None else row.age,
            _known(row.localization),
            row.lesion_id,
            _known(row.sex),
        ]
        for row in rows
    ]
    header = ["image", "age_approx", "anatom_site_general", "lesion_id", "sex"]
    _write(folder / _METADATA, header, about)


def _known(text: str) -> str:
    return "" if text == "unknown" else text


def _write(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])
