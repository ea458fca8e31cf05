"""Everything that is wrong with a data folder, in one report that never crashes on it."""

import hashlib
import io
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from PIL import Image as Pillow
from PIL import UnidentifiedImageError

from common.arrays import Ints
from common.data.dataset import Dataset
from common.data.image import Defect, Image
from common.data.tables.scan import scan
from common.errors import DataError, reason
from common.task import HAM10000, Task


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
    """

    folder: Path
    total: Count
    by_class: dict[str, Count]
    by_site: dict[str, Count]
    defects: tuple[Defect, ...]
    layout: str = ""
    task: Task = HAM10000

    @property
    def usable(self) -> bool:
        """Whether no defect is fatal."""
        return all(defect.severity != "fatal" for defect in self.defects)


class _Decoded(NamedTuple):
    """An image, and the digest of its bytes or else why it cannot be decoded."""

    image_id: str
    digest: bytes | None
    reason: str


def check(folder: str | Path) -> Check:
    """Count a folder's images and find its defects; every image is decoded in full.

    Byte-identical images in different lesions are fatal: whole lesions are split, so the same
    picture could stand in training and in test. Inside one lesion they cannot, and are noted.
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
    lesion_of = {image.image_id: image.lesion_id for image in images}
    return Check(
        folder,
        total=_count(images),
        by_class=_count_by((image.dx for image in images), images),
        by_site=_count_by((image.source for image in images), images),
        defects=(*found.defects, *_image_defects(decoded, lesion_of)),
        layout=found.layout,
        task=found.task,
    )


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
        with Pillow.open(io.BytesIO(data), formats=("JPEG",)) as image:
            image.load()
    except UnidentifiedImageError:
        return _Decoded(image_id, None, "not a JPEG")
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged bytes
        return _Decoded(image_id, None, reason(error))
    return _Decoded(image_id, hashlib.blake2b(data).digest(), "")


def _image_defects(decoded: Sequence[_Decoded], lesion_of: dict[str, str]) -> list[Defect]:
    groups: dict[bytes, list[str]] = defaultdict(list)
    for image in decoded:
        if image.digest is not None:
            groups[image.digest].append(image.image_id)
    twins = [ids for ids in groups.values() if len(ids) > 1]
    across = [ids for ids in twins if len({lesion_of[name] for name in ids}) > 1]
    defects = (
        Defect(
            "image that cannot be decoded",
            "fatal",
            tuple(f"{each.image_id} ({each.reason})" for each in decoded if each.digest is None),
        ),
        Defect("byte-identical images in different lesions", "fatal", _joined(across)),
        Defect(
            "byte-identical images within a lesion",
            "note",
            _joined([ids for ids in twins if ids not in across]),
        ),
    )
    return [defect for defect in defects if defect.offenders]


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
