"""All lesions of a data folder as test lesions of models that were trained elsewhere."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from common.data.dataset import Dataset
from common.errors import ConfigError, DataError
from common.models.file import Model
from common.task import Task
from simulations.evaluation.judgement import OtherDiagnosis, Selection, copies_in_words
from simulations.evaluation.trained_on import Met, Pictures, met_again, named_sets, training_sets


@dataclass(frozen=True)
class EveryLesion:
    """How all lesions of a folder become test lesions.

    Attributes
    ----------
    trained : what becomes of those that a model was trained on: all is refused, or they are left
        out.
    trained_on : folders of images that models were trained on, in place of those that the runs
        recorded.
    """

    trained: Literal["refuse", "leave-out"] = "refuse"
    trained_on: Sequence[Path] = ()


def test_lesions(
    data: Path,
    models: Mapping[str, Model],
    runs: Mapping[str, Path],
    every: EveryLesion,
    cache: Path,
) -> tuple[Dataset, Selection]:
    """Return the images to judge models on, by the models' classes, and how they were chosen.

    Parameters
    ----------
    models, runs : the models and the folders of their runs by name.
    cache : folder for the hashes of pictures.

    Raises
    ------
    ConfigError
        If the models tell other diagnoses apart, or were trained on these lesions.
    DataError
        If the data cannot be used, or the models know none of its diagnoses.
    """
    dataset, others = read_for(data, _common_task(models))
    seen, unchecked = _seen(dataset, models, runs, every, cache.expanduser())
    kept = ~np.any([met.images for met in seen.values()], axis=0)
    if every.trained == "refuse":
        for name, met in seen.items():
            _refuse_trained(data, dataset, name, met)
    if not kept.any():
        raise DataError(f"{data}: the models were trained on all its lesions; name other data")
    copies = tuple(sorted({pair for met in seen.values() for pair in met.copies}))
    selection = Selection(True, tuple(others), int((~kept).sum()), copies, tuple(unchecked))
    return dataset.select(kept), selection


def _refuse_trained(data: Path, dataset: Dataset, name: str, met: Met) -> None:
    if met.images.any():
        lesions = len(np.unique(dataset.lesions[met.images]))
        copies = f" ({words})" if (words := copies_in_words(met.copies)) else ""
        raise ConfigError(
            f"{data}: {name} was trained on {met.images.sum()} of the {len(dataset)} images, of "
            f"{lesions} lesions{copies}; judge without them by --trained leave-out"
        )


def read_for(data: Path, task: Task) -> tuple[Dataset, list[OtherDiagnosis]]:
    """Open a folder by a model's task; return its images, and the diagnoses that go by no own name.

    Raises
    ------
    DataError
        If the folder cannot be used, or none of its diagnoses counts as one of the task's.
    """
    whole = Dataset.open(data)
    others = _others(whole, task)
    if not any(task.mapped(image.dx) for image in whole.images):
        raise DataError(
            f"{data} has the diagnoses {', '.join(o.diagnosis for o in others)}, of which the "
            f"models know none; they know {', '.join(task.codes)}"
        )
    return whole.for_task(task), others


def _others(whole: Dataset, task: Task) -> list[OtherDiagnosis]:
    """Count diagnoses that are none of the task's by their names, unusable rows among them."""
    rows = defaultdict(list)
    for image in whole.images:
        if task.mapped(image.dx) != image.dx:
            rows[image.dx, task.mapped(image.dx)].append(image.lesion_id)
    for image in whole.undiagnosed:
        rows[image.dx, ""].append(image.lesion_id)
    return [
        OtherDiagnosis(dx, counts_as, len(lesions), len(set(lesions)))
        for (dx, counts_as), lesions in sorted(rows.items())
    ]


def _common_task(models: Mapping[str, Model]) -> Task:
    """Return the task of all models, which must be the same."""
    (first, model), *others = models.items()
    for name, other in others:
        if other.task != model.task:
            raise ConfigError(
                f"{name} tells {', '.join(other.task.codes)} apart, {first} "
                f"{', '.join(model.task.codes)}, or counts others as them; evaluate them one by one"
            )
    return model.task


def _seen(
    dataset: Dataset,
    models: Mapping[str, Model],
    runs: Mapping[str, Path],
    every: EveryLesion,
    cache: Path,
) -> tuple[dict[str, Met], list[str]]:
    """Return which images each model was trained on, and for which nobody can tell."""
    own = Pictures.of([dataset], cache)
    named = Pictures.of(named_sets(every.trained_on), cache) if every.trained_on else None
    seen, unchecked = {}, []
    for name, model in models.items():
        trained = _recorded(runs[name], model, cache) if named is None else named
        if trained is None:
            unchecked.append(name)
        seen[name] = met_again(dataset, own, trained or Pictures.of([], cache))
    return seen, unchecked


def _recorded(run: Path, model: Model, cache: Path) -> Pictures | None:
    """Return the images that a run's sites still hold; None where they are gone."""
    parts = training_sets(run, model.config)
    try:
        return None if parts is None else Pictures.of(parts, cache)
    except DataError:  # links to images that were moved
        return None
