"""What arrives at which step: sites, lesions, diagnoses, or a site's images by another camera."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image as Pillow

from common.arrays import Bools, Ints
from common.data.dataset import IMAGE_FOLDER, Dataset
from common.data.splits import folds
from common.storage.whole_files import owned, whole_folder, write_atomically
from common.task import Task
from simulations.data.partition import partition, write_site

ScenarioName = Literal["sites", "time", "classes", "drift"]

_PARTS = 5
_FIRST_CLASSES, _MORE_CLASSES = 3, 2

_SMALLER = 0.5
"""Sides of the images of the changed camera, as shares of what they were."""

_LIGHT = (1.1, 1.0, 0.85)
"""What its red, green and blue are multiplied with."""

_QUALITY = 85  # of JPEG


@dataclass(frozen=True)
class Scenario:
    """Images in the order in which they arrive.

    Attributes
    ----------
    dataset : all images, with their splits.
    names : what arrives, by step.
    step : (n,) step at which each image arrives.
    tasks : diagnoses that are told apart, by step.
    """

    dataset: Dataset
    names: tuple[str, ...]
    step: Ints
    tasks: tuple[Task, ...]

    @classmethod
    def of(cls, name: ScenarioName, dataset: Dataset, folder: Path, seed: int) -> "Scenario":
        """Return a scenario of a dataset with splits.

        Parameters
        ----------
        folder : new folder for images that are changed, or that of the same scenario.
        seed : of what is drawn.

        Raises
        ------
        DataError
            If the dataset has no sources by which to tell sites apart, or cannot be written.
        """
        makers: dict[ScenarioName, Callable[[], Scenario]] = {
            "sites": lambda: _sites(dataset),
            "time": lambda: _time(dataset, seed),
            "classes": lambda: _classes(dataset),
            "drift": lambda: _drift(dataset, folder, seed),
        }
        return makers[name]()


def _sites(dataset: Dataset) -> Scenario:
    """Let the largest site begin; the others join one after the other."""
    parts = partition(dataset, "natural", None, 1.0, 0)
    names = tuple(sorted(parts, key=lambda name: (-len(parts[name]), name)))
    step = np.zeros(len(dataset), dtype=np.int64)
    for number, name in enumerate(names):
        step[parts[name]] = number
    return Scenario(dataset, names, step, (dataset.task,) * len(names))


def _time(dataset: Dataset, seed: int) -> Scenario:
    """Let a fifth of each diagnosis's lesions arrive at a time, at all sites."""
    names = tuple(f"part {number + 1}" for number in range(_PARTS))
    return Scenario(dataset, names, folds(dataset, _PARTS, seed), (dataset.task,) * _PARTS)


def _classes(dataset: Dataset) -> Scenario:
    """Begin with the three most frequent diagnoses; two more are added at a time."""
    task, counts = dataset.task, np.bincount(dataset.labels, minlength=dataset.task.n_classes)
    order = [task.codes[k] for k in np.argsort(-counts, kind="stable")]
    starts = range(_FIRST_CLASSES, len(order), _MORE_CLASSES)
    groups = [order[:_FIRST_CLASSES], *(order[s : s + _MORE_CLASSES] for s in starts)]
    of_class = {code: number for number, group in enumerate(groups) for code in group}
    step = np.array([of_class[task.codes[label]] for label in dataset.labels])
    tasks = tuple(
        _narrowed(task, {code for group in groups[: n + 1] for code in group})
        for n in range(len(groups))
    )
    return Scenario(dataset, tuple(", ".join(group) for group in groups), step, tasks)


def _narrowed(task: Task, codes: set[str]) -> Task:
    kept = [code for code in task.codes if code in codes]
    names = {code: name for code, name in zip(task.codes, task.names, strict=True) if code in kept}
    mapping = {source: target for source, target in task.mapping if target in kept}
    return Task.of(kept, names, [code for code in task.malignant if code in kept], mapping)


def _drift(dataset: Dataset, folder: Path, seed: int) -> Scenario:
    """Let the largest site change its camera for half of its lesions, which arrive later."""
    parts = partition(dataset, "natural", None, 1.0, 0)
    largest = max(parts, key=lambda name: (len(parts[name]), name))
    later = np.zeros(len(dataset), dtype=np.int64)
    later[parts[largest]] = folds(dataset.select(parts[largest]), 2, seed)
    changed = by_another_camera(dataset, later == 1, folder)
    names = ("all sites as they were", f"{largest} by another camera")
    return Scenario(changed, names, later, (dataset.task,) * 2)


def by_another_camera(dataset: Dataset, which: Bools, folder: Path) -> Dataset:
    """Write a folder of the same images, some as another camera would have made them.

    Parameters
    ----------
    which : (n,) those that are changed.
    folder : a new one, or that of the same images.
    """
    with owned(folder, wait=True):
        if not folder.exists():
            with whole_folder(folder) as out:
                write_site(dataset, out, link=True)
                for i in np.flatnonzero(which):
                    image_id = dataset.images[i].image_id
                    file = out / IMAGE_FOLDER / f"{image_id}.jpg"
                    data = _changed(dataset.read(image_id))
                    file.unlink()
                    write_atomically(file, data)
    return Dataset.open(folder).for_task(dataset.task)


def _changed(data: bytes) -> bytes:
    with Pillow.open(io.BytesIO(data)) as image:
        width, height = (round(side * _SMALLER) for side in image.size)
        small = image.convert("RGB").resize((width, height), Pillow.Resampling.LANCZOS)
    lit = np.clip(np.asarray(small) * np.array(_LIGHT), 0, 255)
    out = io.BytesIO()
    Pillow.fromarray(np.round(lit).astype(np.uint8)).save(out, "JPEG", quality=_QUALITY)
    return out.getvalue()
