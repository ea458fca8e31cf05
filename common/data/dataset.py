"""HAM10000 as published: a metadata table beside folders or zip files of JPEG images.

Source: Tschandl, Rosendahl, Kittler, "The HAM10000 dataset", Scientific Data 5:180161 (2018),
doi:10.7910/DVN/DBW86T.
"""

import csv
import io
import math
import os
import re
import struct
import zipfile
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from common.arrays import Bools, Ints
from common.errors import DataError, reason
from common.reading import open_file, read_bytes, read_text
from common.task import HAM10000, KNOWN, Task, usual_task
from common.text import is_site_name, printable

IMAGE_FOLDER = "HAM10000_images_part_1"
MASK_FOLDER = "HAM10000_segmentations_lesion_tschandl"
METADATA_FILE = "HAM10000_metadata.csv"
SYNTHETIC_MARKER = "SYNTHETIC.txt"

_COLUMNS = ("lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization")
_OPTIONAL = ("split", "patient_id")
_KNOWN = (*_COLUMNS, "dataset", *_OPTIONAL)
_METADATA_NAMES = ("ham10000_metadata.csv", "ham10000_metadata.tab", "ham10000_metadata")
_PUBLISHED_PART = re.compile(r"ham10000_images_part_\d+(\.zip)?", re.IGNORECASE)
_SPLIT = re.compile(r"test|\d+", re.ASCII)
# zipfile has no common error: on damaged archives it raises any of these.
_READ_ERRORS = (
    OSError,
    RuntimeError,
    ValueError,
    EOFError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)


@dataclass(frozen=True)
class Image:
    """One row of the metadata table.

    ``age`` is in years, None where missing; ``source`` is the column ``dataset``, ``split`` is
    "test" or a fold number, and ``patient_id`` names a person: all three "" where the table does
    not have the column.
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


class Location(NamedTuple):
    """Where an image lies: a folder or a zip file, and the name in it."""

    container: Path
    member: str


@dataclass(frozen=True)
class Lesions:
    """The m lesions behind n images: ``index`` (n,) into ``labels`` (m,) and ``sizes`` (m,)."""

    index: Ints
    labels: Ints
    sizes: Ints


@dataclass(frozen=True)
class Defect:
    """One kind of defect in a data folder, with everything that has it."""

    kind: str
    severity: Literal["fatal", "warning", "note"]
    offenders: tuple[str, ...]

    def __str__(self) -> str:
        first = ", ".join(printable(name)[:200] for name in self.offenders[:3])
        return f"{len(self.offenders)} x {self.kind}: {first}{', ...' * (len(self.offenders) > 3)}"


class Scan(NamedTuple):
    """The content of a folder, usable or not; no image was decoded."""

    images: tuple[Image, ...]
    files: dict[str, Location]
    defects: tuple[Defect, ...]


@dataclass(frozen=True)
class Dataset:
    """Images of lesions with their metadata; :meth:`open` returns them sorted by ``image_id``.

    Attributes
    ----------
    task : the diagnoses; those of the images are its codes, or mapped to them.
    left_out : number of images by diagnosis that :meth:`for_task` left out.
    """

    folder: Path
    images: tuple[Image, ...]
    files: Mapping[str, Location] = field(repr=False, compare=False)
    task: Task = HAM10000
    left_out: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def open(cls, folder: str | Path) -> Self:
        """Open a folder that is laid out like HAM10000.

        The table is ``HAM10000_metadata.csv``, ``.tab`` or without an ending, separated by commas
        or tabs. The images lie in the published part folders or zip files, else in the folder
        itself or any folders or zip files directly inside it.

        Raises
        ------
        DataError
            If the folder cannot be used, as far as this can be told without decoding an image.
        """
        folder = Path(folder)
        contents = scan(folder)
        if fatal := [str(defect) for defect in contents.defects if defect.severity == "fatal"]:
            raise DataError(
                f"{folder}: {'; '.join(fatal)}; `fedderm data check {folder}` shows all"
            )
        task = usual_task({image.dx for image in contents.images})
        return cls(folder, contents.images, contents.files, task)

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def labels(self) -> Ints:
        """Diagnoses as indices into the codes of `task`, shape ``(n,)``."""
        return np.array(
            [self.task.codes.index(self.task.mapped(image.dx)) for image in self.images],
            dtype=np.int64,
        )

    @cached_property
    def lesions(self) -> NDArray[np.str_]:
        """Lesion of each image, shape ``(n,)``."""
        return np.array([image.lesion_id for image in self.images], dtype=np.str_)

    @cached_property
    def sources(self) -> NDArray[np.str_]:
        """Acquisition source of each image, "" where unknown, shape ``(n,)``."""
        return np.array([image.source for image in self.images], dtype=np.str_)

    @cached_property
    def splits(self) -> NDArray[np.str_]:
        """Split of each image, "test" or a fold number, "" where none, shape ``(n,)``."""
        return np.array([image.split for image in self.images], dtype=np.str_)

    @cached_property
    def by_lesion(self) -> Lesions:
        """The lesions in the order of their names."""
        _, first, index, sizes = np.unique(
            self.lesions, return_index=True, return_inverse=True, return_counts=True
        )
        return Lesions(index, self.labels[first], sizes)

    @property
    def synthetic(self) -> bool:
        """Whether the images were generated; every table made from them must say so."""
        return (self.folder / SYNTHETIC_MARKER).exists()

    def select(self, indices: NDArray[np.integer] | Bools) -> "Dataset":
        """Return the images at ``indices``, numbers (m,) or a mask (n,), in the order given."""
        chosen = np.arange(len(self))[indices]
        return replace(self, images=tuple(self.images[i] for i in chosen))

    def for_task(self, task: Task) -> "Dataset":
        """Return the images whose diagnosis a task has or maps, with labels of that task.

        The others are counted in ``left_out``. An image keeps the diagnosis that its table gives.

        Raises
        ------
        DataError
            If no image is left.
        """
        images = tuple(image for image in self.images if task.mapped(image.dx))
        out = Counter(image.dx for image in self.images if not task.mapped(image.dx))
        if not images:
            raise DataError(
                f"{self.folder}: none of its diagnoses, {printable(', '.join(sorted(out)))}, is "
                f"one of {', '.join(task.codes)}; set 'diagnoses' or 'mapping'"
            )
        return replace(self, images=images, task=task, left_out=dict(sorted(out.items())))

    @property
    def left_out_in_words(self) -> str:
        """Which diagnoses the task does not have, and of how many images; "" where it has all."""
        if not self.left_out:
            return ""
        listed = ", ".join(f"{printable(code)} {n}" for code, n in self.left_out.items())
        return (
            f"{sum(self.left_out.values())} images are left out, whose diagnoses this run does "
            f"not have: {listed}; 'diagnoses' adds them, 'mapping' counts them as others"
        )

    def with_splits(self, splits: Sequence[str] | NDArray[np.str_]) -> "Dataset":
        """Return the same images with ``splits`` (n,) in place of their own."""
        pairs = zip(self.images, splits, strict=True)
        return replace(self, images=tuple(replace(image, split=str(s)) for image, s in pairs))

    def read(self, image_id: str) -> bytes:
        """Return the JPEG bytes of one image; safe in threads and in forked processes.

        Raises
        ------
        DataError
            If the file or its archive cannot be read.
        """
        container, member = self.files[image_id]
        try:
            if _is_zip(container):
                return _archive(container, os.getpid()).read(member)
            return read_bytes(container / member)
        except _READ_ERRORS as error:
            raise DataError(
                f"{container / member} cannot be read ({reason(error)}); restore the file"
            ) from error


def scan(folder: Path) -> Scan:
    """Read the table, list the images and name every defect that shows without decoding.

    Raises
    ------
    DataError
        If there is no table that can be read as one.
    """
    images = tuple(sorted(map(_image, _read_table(folder)), key=lambda image: image.image_id))
    files, broken = _find_images(folder)
    kinds = {"folder or archive that cannot be read": broken, **_row_defects(images, files)}
    defects = [Defect(kind, "fatal", tuple(who)) for kind, who in kinds.items() if who]
    if strays := sorted(files.keys() - {image.image_id for image in images}):
        defects.append(Defect("image without a row", "warning", tuple(strays)))
    sources = {image.source for image in images} - {""}
    if odd := sorted(source for source in sources if not is_site_name(source)):
        defects.append(Defect("source that is no name of a site", "warning", tuple(odd)))
    return Scan(images, files, tuple(defects))


def write_metadata(folder: Path, images: Iterable[Image]) -> None:
    """Write ``HAM10000_metadata.csv`` with the column ``dataset``, and others that are filled."""
    images = tuple(images)
    filled = [name for name in _OPTIONAL if any(getattr(image, name) for image in images)]
    extra = ("dataset", *filled)
    with open(folder / METADATA_FILE, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow((*_COLUMNS, *extra))
        for image in images:
            row = {**vars(image), "dataset": image.source}
            writer.writerow([row[column] for column in (*_COLUMNS, *extra)])


def _read_table(folder: Path) -> list[dict[str, str]]:
    try:
        names = {name.lower(): name for name in sorted(os.listdir(folder))}
    except (OSError, ValueError) as error:  # a ValueError: no name of a folder
        why = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"{folder} cannot be listed ({why}); name a folder") from error
    path = next((folder / names[name] for name in _METADATA_NAMES if name in names), None)
    if path is None:
        raise DataError(f"{folder} has no {METADATA_FILE}; put the metadata beside the images")
    try:
        text = read_text(path)
        delimiter = "\t" if "\t" in text.partition("\n")[0] else ","
        reader = csv.DictReader(io.StringIO(text), delimiter=delimiter)
        rows, header = list(reader), reader.fieldnames or ()
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is no table ({error}); restore the published file") from error
    if "\0" in text:  # an array of texts would drop it from the end of one
        raise DataError(f"{path} is no table (it has a NUL character); restore the published file")
    if twice := [column for column in _KNOWN if header.count(column) > 1]:
        raise DataError(f"{path} has the column {twice[0]} twice; keep the right one")
    if missing := [column for column in _COLUMNS if column not in header]:
        raise DataError(f"{path} lacks the columns {', '.join(missing)}; add them")
    if long := [number for number, row in enumerate(rows, 1) if any(row.get(None) or ())]:
        raise DataError(f"{path}: row {long[0]} has more cells than there are columns; quote them")
    if not rows:
        raise DataError(f"{path} has no rows; restore the published file")
    return rows


def _image(row: Mapping[str, str | None]) -> Image:
    # A short row reads as None.
    cell = {column: (row.get(column) or "").strip() for column in _KNOWN}
    return Image(
        image_id=cell["image_id"],
        lesion_id=cell["lesion_id"],
        dx=cell["dx"],
        dx_type=cell["dx_type"],
        age=_age(cell["age"]),
        sex=cell["sex"],
        localization=cell["localization"],
        source=cell["dataset"],
        split=cell["split"],
        patient_id=cell["patient_id"],
    )


def _age(text: str) -> float | None:
    try:
        age = float(text)
    except ValueError:
        return None
    return age if math.isfinite(age) else None


def _row_defects(images: Sequence[Image], files: Mapping[str, Location]) -> dict[str, list[str]]:
    ids = Counter(image.image_id for image in images)
    diagnoses, splits = defaultdict(set), defaultdict(set)
    for image in images:
        diagnoses[image.lesion_id].add(image.dx)
        splits[image.lesion_id].add(image.split)
    has_splits = any(image.split for image in images)
    return {
        "row without image_id or lesion_id": [
            f"image_id {image.image_id!r}, lesion_id {image.lesion_id!r}"
            for image in images
            if not (image.image_id and image.lesion_id)
        ],
        "unknown diagnosis": [
            f"{image.image_id} {image.dx}" for image in images if image.dx not in KNOWN
        ],
        "duplicate image_id": [name for name, count in ids.items() if count > 1],
        "lesion with two diagnoses": [name for name, dxs in diagnoses.items() if len(dxs) > 1],
        "lesion in two splits": [name for name, parts in splits.items() if len(parts) > 1],
        "split that is neither test nor a fold number": [
            f"{image.image_id} {image.split}"
            for image in images
            if has_splits and not _SPLIT.fullmatch(image.split)
        ],
        "row without an image": [name for name in ids if name and name not in files],
    }


def _find_images(folder: Path) -> tuple[dict[str, Location], list[str]]:
    """Locate each image by its id, and name the containers which cannot be listed."""
    inside = [folder / name for name in os.listdir(folder) if not _is_jpeg(name)]
    # Folders before archives: where a part is both unpacked and zipped, the files are quicker.
    inside.sort(key=lambda path: (_is_zip(path), path.name))
    # The published download also holds test images and masks, which are not in the table.
    parts = [path for path in inside if _PUBLISHED_PART.fullmatch(path.name)]
    others = (path for path in inside if "segmentation" not in path.name.lower())
    files: dict[str, Location] = {}
    broken = []
    for container in parts or (folder, *others):
        try:
            for member in _members(container):
                stem = os.path.splitext(os.path.basename(member))[0]
                files.setdefault(stem, Location(container, member))
        except _READ_ERRORS as error:
            broken.append(f"{container.name} ({reason(error)})")
    return files, broken


def _members(container: Path) -> list[str]:
    if _is_zip(container):
        names = _archive(container, os.getpid()).namelist()
    else:
        names = os.listdir(container) if container.is_dir() else []
    return [name for name in names if _is_jpeg(name)]


def _is_jpeg(name: str) -> bool:
    # Names with a leading dot are the resource forks that macOS leaves in archives.
    return name.lower().endswith((".jpg", ".jpeg")) and not os.path.basename(name).startswith(".")


def _is_zip(path: Path) -> bool:
    return path.suffix.lower() == ".zip"


@lru_cache(maxsize=16)
def _archive(path: Path, process: int) -> zipfile.ZipFile:
    # A forked process shares the file's offset with its parent: each opens the archive itself.
    return zipfile.ZipFile(open_file(path))
