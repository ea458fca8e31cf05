"""Everything that is wrong with a data folder, in one report that never crashes on it."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common.arrays import Ints
from common.data.dataset import Dataset
from common.data.duplicates import Hashes, hash_of, near_duplicates
from common.data.image import Defect, Image
from common.data.tables.findings import NO_ROWS
from common.data.tables.scan import scan
from common.errors import DataError, reason
from common.task import HAM10000, Task

_LEAST_EMPTY = 10
"""Images of a site from which on it is no chance that none has a value."""


class Count(NamedTuple):
    """How many images and lesions a group has, and how many of the images lack a value."""

    images: int
    lesions: int
    no_age: int
    no_sex: int
    no_localization: int


@dataclass(frozen=True)
class Check:
    """What a folder holds and what is wrong with it.

    Attributes
    ----------
    layout : as what it was read, with the names of the tables; "" where as nothing.
    task : the diagnoses that were read.
    undiagnosed : images of rows without a diagnosis.
    """

    folder: Path
    total: Count
    by_class: dict[str, Count]
    by_site: dict[str, Count]
    defects: tuple[Defect, ...]
    layout: str = ""
    task: Task = HAM10000
    undiagnosed: int = 0

    @property
    def fatal(self) -> list[Defect]:
        """The defects with which no site can take part."""
        return [defect for defect in self.defects if defect.severity == "fatal"]

    @property
    def diagnosis_missing(self) -> bool:
        """Whether all that is fatal is that no row has a diagnosis."""
        return bool(self.undiagnosed) and [each.kind for each in self.fatal] == [NO_ROWS.text]

    @property
    def usable(self) -> bool:
        """Whether no defect is fatal."""
        return not self.fatal


class _Decoded(NamedTuple):
    """An image: the digest of its bytes and its hash, or else why it cannot be decoded."""

    image_id: str
    digest: bytes | None
    hash: Hashes | None
    reason: str


def check(folder: str | Path) -> Check:
    """Count a folder's images and find its defects; every image is decoded in full.

    Whole lesions are split, so copies of a picture in different lesions could stand in training and
    in test: they are named, and fatal where their diagnoses differ. Inside a lesion they cannot.
    """
    folder = Path(folder)
    try:
        found = scan(folder)
    except DataError as error:
        unusable = Defect("metadata that cannot be used", "fatal", (str(error),))
        return Check(folder, _count(()), {}, {}, (unusable,))
    images, files = found.images, found.files
    ids = sorted({image.image_id for image in images} & files.keys())
    decoded = _decode_all(Dataset(folder, images, files), ids)
    rows = {image.image_id: image for image in images}
    return Check(
        folder,
        total=_count(images),
        by_class=_count_by((image.dx for image in images), images),
        by_site=_count_by((image.source for image in images), images),
        defects=(*found.defects, *_image_defects(decoded, rows), *_empty_columns(images)),
        layout=found.layout,
        task=found.task,
        undiagnosed=sum(not image.dx for image in found.left_out),
    )


def _empty_columns(images: Sequence[Image]) -> list[Defect]:
    """Name what a site of several images has in no row and another site has."""
    sites = _count_by((image.source for image in images), images)
    lacking = tuple(
        f"{what} at {site or '(none)'}"
        for what in ("age", "sex", "localization")
        if any(getattr(count, f"no_{what}") < count.images for count in sites.values())
        for site, count in sites.items()
        if getattr(count, f"no_{what}") == count.images >= _LEAST_EMPTY
    )
    kind = "column that one site lacks and another has"
    return [Defect(kind, "note", lacking)] if lacking else []


def unreadable(dataset: Dataset, indices: Ints) -> list[tuple[str, str]]:
    """Decode the images at ``indices`` and return ``(image_id, reason)`` of those that fail."""
    ids = [dataset.images[i].image_id for i in indices]
    decoded = _decode_all(dataset, ids)
    return [(image.image_id, image.reason) for image in decoded if image.digest is None]


def _decode_all(dataset: Dataset, ids: Sequence[str]) -> list[_Decoded]:
    # Pillow lets go of the interpreter lock while it decodes: threads are enough.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(lambda image_id: _decode(dataset, image_id), ids))


def _decode(dataset: Dataset, image_id: str) -> _Decoded:
    try:
        data = dataset.read(image_id)
        return _Decoded(image_id, hashlib.blake2b(data).digest(), hash_of(data), "")
    except Exception as error:  # of memory, too: the report goes on
        return _Decoded(image_id, None, None, reason(error))


def _image_defects(decoded: Sequence[_Decoded], rows: Mapping[str, Image]) -> list[Defect]:
    broken = tuple(f"{each.image_id} ({each.reason})" for each in decoded if each.digest is None)
    copies = [ids for ids in _copies(decoded) if len({rows[name].lesion_id for name in ids}) > 1]
    differ = [ids for ids in copies if len({rows[name].dx for name in ids}) > 1]
    named = [[f"{name} {rows[name].dx}" for name in ids] for ids in differ]
    alike = [ids for ids in copies if ids not in differ]
    twins = [ids for ids in _twins(decoded) if len({rows[name].lesion_id for name in ids}) == 1]
    defects = (
        Defect("image that cannot be used", "fatal", broken),
        Defect("copies of a picture with different diagnoses", "fatal", _joined(named)),
        Defect("copies of a picture in different lesions", "warning", _joined(alike)),
        Defect("byte-identical images within a lesion", "note", _joined(twins)),
    )
    return [defect for defect in defects if defect.offenders]


def _copies(decoded: Sequence[_Decoded]) -> list[list[str]]:
    """Return groups of images that are the same picture or nearly so."""
    ids = [each.image_id for each in decoded if each.hash is not None]
    hashes = [each.hash for each in decoded if each.hash is not None]
    if not hashes:
        return []
    return [[ids[i] for i in members] for members in near_duplicates(np.stack(hashes))]


def _twins(decoded: Sequence[_Decoded]) -> list[list[str]]:
    """Return groups of byte-identical images."""
    groups: dict[bytes, list[str]] = defaultdict(list)
    for image in decoded:
        if image.digest is not None:
            groups[image.digest].append(image.image_id)
    return [ids for ids in groups.values() if len(ids) > 1]


def _joined(groups: Sequence[Sequence[str]]) -> tuple[str, ...]:
    return tuple(" = ".join(ids) for ids in groups)


def _count_by(keys: Iterable[str], images: Sequence[Image]) -> dict[str, Count]:
    groups: dict[str, list[Image]] = defaultdict(list)
    for key, image in zip(keys, images, strict=True):
        groups[key].append(image)
    return {key: _count(groups[key]) for key in sorted(groups)}


def _count(images: Sequence[Image]) -> Count:
    return Count(
        images=len(images),
        lesions=len({image.lesion_id for image in images}),
        no_age=sum(image.age is None for image in images),
        no_sex=sum(image.sex in ("", "unknown") for image in images),
        no_localization=sum(image.localization in ("", "unknown") for image in images),
    )
