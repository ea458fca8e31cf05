"""Reads a data folder of any layout and names what is wrong with it; decodes no image."""

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from common.data.image import PSEUDO_LABEL, TRAIN, Scan
from common.data.tables.class_folders import ClassFolders
from common.data.tables.files import Files
from common.data.tables.findings import (
    BROKEN_FOLDER,
    DUPLICATE_IMAGE,
    NO_ROWS,
    ODD_SOURCE,
    ODD_SPLIT,
    OTHER_LAYOUT,
    TWO_DIAGNOSES,
    TWO_SPLITS,
    Findings,
)
from common.data.tables.folder import Folder
from common.data.tables.ham10000 import METADATA_FILE, Ham10000
from common.data.tables.isic2020 import Isic2020
from common.data.tables.isic_archive import IsicArchive
from common.data.tables.isic_challenge import ISIC_2018, ISIC_2019
from common.data.tables.layout import Layout
from common.data.tables.pad_ufes import PadUfes
from common.data.tables.rows import Placed, content
from common.errors import DataError
from common.text import is_site_name

OWN_FILE = "data.toml"

PUBLISHED: Sequence[Layout] = (
    Ham10000(),
    ISIC_2018,
    ISIC_2019,
    Isic2020(),
    PadUfes(),
    IsicArchive(),
)
"""Layouts with a table; the first that recognises a folder reads it."""

_SPLIT = re.compile(r"test|\d{1,7}", re.ASCII)


def scan(path: Path) -> Scan:
    """Read the table, list the images and name every defect that shows without decoding.

    ``data.toml`` goes before any published layout, and folders of diagnoses come last.

    Raises
    ------
    DataError
        If no layout fits, or the table cannot be read as one.
    """
    folder, findings = Folder(path), Findings()
    layout = _layout(folder, findings)
    reading = layout.read(folder, findings)
    findings.add(BROKEN_FOLDER, *folder.found.broken)
    if reading.files is None:
        files = Files.of(folder.found.images, findings)
    else:
        files = Files(reading.files)
    rows, left_out, located, task = content(reading, files, findings)
    _check_rows(rows, findings)
    if not rows:
        findings.add(NO_ROWS, ", ".join(reading.tables) or str(path))
    of = f" ({', '.join(reading.tables)})" if reading.tables else ""
    images = tuple(placed.image for placed in rows)
    return Scan(images, located, findings.defects(), layout.name + of, task, left_out)


def _layout(folder: Folder, findings: Findings) -> Layout:
    if folder.named(OWN_FILE):
        from common.data.tables.own import Own  # few folders need it

        return Own()
    fitting = [layout for layout in PUBLISHED if layout.recognises(folder)]
    findings.add(OTHER_LAYOUT, *(layout.name for layout in fitting[1:]))
    if fitting:
        return fitting[0]
    by_class = ClassFolders()
    if by_class.recognises(folder):
        return by_class
    raise DataError(
        f"{folder.path} has no {METADATA_FILE}, no other table that is known and no folders of "
        f"diagnoses{_headers(folder)}; describe its table in {OWN_FILE} (docs/data.md)"
    )


def _headers(folder: Folder) -> str:
    others = [f"{t.path.name} has the columns {', '.join(t.header[:12])}" for t in folder.tables()]
    return "".join(f"; {why}" for why in [*folder.unreadable, *others][:2])


def _check_rows(rows: Sequence[Placed], findings: Findings) -> None:
    ids, of_lesion = defaultdict(list), defaultdict(list)
    for placed in rows:
        ids[placed.image.image_id].append(placed)
        of_lesion[placed.image.lesion_id].append(placed)
    for name, all_ in ids.items():
        if len(all_) > 1:
            findings.add(DUPLICATE_IMAGE, f"{name} ({', '.join(p.place for p in all_[:5])})")
    for lesion, all_ in of_lesion.items():
        _check_lesion(lesion, all_, findings)
    if any(image.split for image, _ in rows):
        for image, place in rows:
            trained = image.split == TRAIN and image.dx_type == PSEUDO_LABEL
            if not trained and not _SPLIT.fullmatch(image.split):
                findings.add(ODD_SPLIT, f"{image.image_id} {image.split} ({place})")
    sources = {image.source for image, _ in rows} - {""}
    findings.add(ODD_SOURCE, *sorted(name for name in sources if not is_site_name(name)))


def _check_lesion(lesion: str, rows: Sequence[Placed], findings: Findings) -> None:
    diagnoses = {image.dx: place for image, place in rows}
    if len(diagnoses) > 1:
        said = ", ".join(f"{dx} in {place}" for dx, place in sorted(diagnoses.items()))
        findings.add(TWO_DIAGNOSES, f"{lesion} ({said})")
    splits = {image.split: place for image, place in rows}
    if len(splits) > 1:
        said = ", ".join(f"{split} in {place}" for split, place in sorted(splits.items()))
        findings.add(TWO_SPLITS, f"{lesion} ({said})")
