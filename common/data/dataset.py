"""Images of lesions with their metadata, whatever layout their folder has."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from common.arrays import Bools, Ints
from common.data.image import Defect, Image, Location
from common.data.metadata import UNKNOWN
from common.data.tables import lesions
from common.data.tables.findings import NO_ROWS
from common.data.tables.folder import read_image
from common.data.tables.scan import scan
from common.errors import DataError
from common.task import HAM10000, Task
from common.text import printable

IMAGE_FOLDER = "HAM10000_images_part_1"
MASK_FOLDER = "HAM10000_segmentations_lesion_tschandl"
SYNTHETIC_MARKER = "SYNTHETIC.txt"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Lesions:
    """The m lesions behind n images: ``index`` (n,) into ``labels`` (m,) and ``sizes`` (m,)."""

    index: Ints
    labels: Ints
    sizes: Ints


@dataclass(frozen=True)
class Dataset:
    """Images of lesions with their metadata; :meth:`open` returns them sorted by ``image_id``.

    Attributes
    ----------
    files : where each image lies, by its id.
    task : the diagnoses; those of the images are its codes, or mapped to them.
    left_out : number of images by diagnosis that :meth:`for_task` left out.
    undiagnosed : images of rows whose diagnosis cannot be used; it is the table's own text.
    warnings : what was left out or is unknown when the folder was opened.
    """

    folder: Path
    images: tuple[Image, ...]
    files: Mapping[str, Location] = field(repr=False, compare=False)
    task: Task = HAM10000
    left_out: Mapping[str, int] = field(default_factory=dict)
    undiagnosed: tuple[Image, ...] = field(default=(), repr=False, compare=False)
    warnings: tuple[Defect, ...] = field(default=(), repr=False, compare=False)

    @classmethod
    def open(cls, folder: str | Path, *, diagnosed: bool = True) -> Self:
        """Open a folder of any layout in docs/data.md.

        Rows that cannot be used are left out; `warnings` names them.

        Parameters
        ----------
        diagnosed : whether a row must have a diagnosis; if not, those without may be all there are.

        Raises
        ------
        DataError
            If the folder cannot be used, as far as this can be told without decoding an image.
        """
        folder = Path(folder)
        contents = scan(folder)
        allowed = {NO_ROWS.text} if contents.left_out and not diagnosed else set()
        fatal = [
            str(each)
            for each in contents.defects
            if each.severity == "fatal" and each.kind not in allowed
        ]
        if fatal:
            raise DataError(
                f"{folder}: {'; '.join(fatal)}; `fedderm data check {folder}` shows all"
            )
        warnings = tuple(each for each in contents.defects if each.severity == "warning")
        for warning in warnings:
            _say_once(f"{folder}: {warning}; {warning.remedy}")
        return cls(
            folder,
            contents.images,
            contents.files,
            contents.task,
            undiagnosed=contents.left_out,
            warnings=warnings,
        )

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
    def unknown_lesions(self) -> str:
        """What stands for lesions that the table does not name, for a report; "" where none."""
        return lesions.basis(self.images)

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
            If it has images and none is left.
        """
        images = tuple(image for image in self.images if task.mapped(image.dx))
        out = Counter(image.dx for image in self.images if not task.mapped(image.dx))
        if self.images and not images:
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

    def without_metadata(self) -> "Dataset":
        """Return the same images as if no patient's age, sex and place were known."""
        blank = UNKNOWN._asdict()
        return replace(self, images=tuple(replace(image, **blank) for image in self.images))

    def read(self, image_id: str) -> bytes:
        """Return the bytes of one image's file; safe in threads and in forked processes.

        Raises
        ------
        DataError
            If the file or its archive cannot be read.
        """
        return read_image(self.files[image_id])


@cache
def _say_once(text: str) -> None:
    """Log what is left out of a folder, though it is opened for each question again."""
    _log.warning("%s", text)
