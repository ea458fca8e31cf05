"""Which lesions were taken out of a model: one run trained on them, a later one did not."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from common.arrays import Bools, Ints
from common.data.dataset import Dataset
from common.data.duplicates import open_joined
from common.data.splits import fold_numbers
from common.errors import ConfigError, DataError
from common.methods import METHODS
from common.models.file import Model, load_model
from server.run.folder import model_file, read_metrics
from server.run.parent import ABSENT, LINEAGE
from simulations.evaluation.trained_on import training_sets


@dataclass(frozen=True)
class FinishedRun:
    """A finished run: its model, and what that has seen.

    Attributes
    ----------
    name : as its user wrote it.
    folder : of its files.
    seen : names of the lesions that the model rests on, its ancestors' among them.
    fitted : those of them that weights were fitted to; a network is validated on the others.
    """

    name: str
    folder: Path
    model: Model
    seen: frozenset[str]
    fitted: frozenset[str]

    @classmethod
    def open(cls, path: Path, weights: Sequence[Path]) -> Self:
        """Read a run and its ancestors.

        Parameters
        ----------
        weights : files among which the model's pretrained weights are found.

        Raises
        ------
        DataError
            If there is no finished run, or the folders of its sites are gone.
        """
        file = model_file(path)
        model = load_model(file, *weights)
        by_site = _by_site(file.parent, model)
        seen = frozenset(str(lesion) for part in by_site.values() for lesion in part.lesions)
        fitted = [part.select(_fitted(part, model)) for part in by_site.values()]
        names = frozenset(str(lesion) for part in fitted for lesion in part.lesions)
        return cls(str(path), file.parent, model, seen, names)


def _by_site(run: Path, model: Model) -> dict[str, Dataset]:
    """Return what a model rests on by site; what was trained before the last run by its place.

    Sums are by site, so a site that is absent keeps its share. A network keeps all that it saw.
    """
    metrics, parts = read_metrics(run), training_sets(run, model.config)
    if parts is None:
        raise DataError(
            f"{run}: its sites are gone, so nobody can tell what it was trained on; train it again"
        )
    left_out = metrics["data"]["left_out"]
    own = {part.folder.name: part for part in parts if part.folder.name not in left_out}
    lineage = metrics.get(LINEAGE)
    if lineage is None:
        return own
    parent = model_file(Path(lineage["parent"]))
    former = _by_site(parent.parent, load_model(parent, model.config.weights))
    if METHODS[model.config.method].trains_network:
        return {**own, **{f"{parent}/{name}": part for name, part in former.items()}}
    absent = [name for name, site in lineage["sites"].items() if site["since"] == ABSENT]
    return {**own, **{name: former[name] for name in absent}}


def _fitted(part: Dataset, model: Model) -> Bools:
    """Return which images (n,) weights are fitted to."""
    method = METHODS[model.config.method]
    validates = method.trains_network and not method.private
    return np.asarray(fold_numbers(part.splits) != 0) | (not validates)


@dataclass(frozen=True)
class Compared:
    """The lesions of an attack: withdrawn ones, beside others of the same site and diagnosis.

    Attributes
    ----------
    dataset : the images of both, of pooled data.
    kept : the images of the lesions that the later run still rests on.
    withdrawn : (m,) which lesions of ``dataset``, in the order of their names, are withdrawn; no
        run has seen the others.
    stratum : (m,) number of each lesion's site and diagnosis.
    alone : withdrawn lesions that have none of the same site and diagnosis beside them.
    """

    dataset: Dataset
    kept: Dataset
    withdrawn: Bools
    stratum: Ints
    alone: int

    @classmethod
    def find(
        cls, data: Path, before: FinishedRun, after: FinishedRun, others: Sequence[FinishedRun]
    ) -> Self:
        """Find the lesions in pooled data.

        Parameters
        ----------
        others : further runs that must not have seen them.

        Raises
        ------
        ConfigError
            If no lesion is withdrawn, or another run has seen one.
        DataError
            If the data lack them, or lesions to compare them with.
        """
        withdrawn = before.fitted - after.seen
        _refuse(withdrawn, before, after, others)
        dataset = open_joined(data, before.model.config.cache).for_task(before.model.task)
        seen = before.seen.union(after.seen, *(run.seen for run in others))
        gone, known = (np.isin(dataset.lesions, sorted(names)) for names in (withdrawn, seen))
        if not gone.any():
            raise DataError(
                f"{data} has none of the {len(withdrawn)} lesions that were withdrawn from "
                f"{before.name}; name the data that it was trained on"
            )
        return cls._strata(dataset, gone, ~known, np.isin(dataset.lesions, sorted(after.fitted)))

    @classmethod
    def _strata(cls, dataset: Dataset, gone: Bools, unseen: Bools, kept: Bools) -> Self:
        of_image = np.array(
            [f"{label} {s}" for label, s in zip(dataset.labels, dataset.sources, strict=True)]
        )
        both = set(of_image[gone]) & set(of_image[unseen])
        chosen = (gone | unseen) & np.isin(of_image, sorted(both))
        alone = len(set(dataset.lesions[gone]) - set(dataset.lesions[chosen]))
        if not chosen.any():
            raise DataError(
                f"{dataset.folder}: no lesion of the same site and diagnosis as the withdrawn "
                "ones was held out of training; raise test_fraction and train again"
            )
        one = dataset.select(chosen)
        first = np.unique(one.lesions, return_index=True)[1]
        stratum = np.unique(of_image[chosen][first], return_inverse=True)[1]
        return cls(one, dataset.select(kept), gone[chosen][first], stratum, alone)


def _refuse(
    withdrawn: frozenset[str],
    before: FinishedRun,
    after: FinishedRun,
    others: Sequence[FinishedRun],
) -> None:
    if before.folder == after.folder:
        raise ConfigError(f"{before.name} is both the run before and the one after; name two")
    for run in (after, *others):
        if run.model.task.codes != before.model.task.codes:
            raise ConfigError(
                f"{run.name} knows {', '.join(run.model.task.codes)} and {before.name} "
                f"{', '.join(before.model.task.codes)}; compare models of the same diagnoses"
            )
    if not withdrawn:
        raise ConfigError(
            f"no lesion is withdrawn: {after.name}, or a run that it goes on from, has seen all "
            f"that {before.name} was trained on"
        )
    for run in others:
        if seen := sorted(withdrawn & run.seen):
            raise ConfigError(
                f"{run.name} has seen {len(seen)} of the withdrawn lesions ({seen[0]}, ...); name "
                "a run that was trained without them"
            )
