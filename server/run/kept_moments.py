"""The moments of each site beside a model that is solved from their sum, for the next run.

So a site's share can be added, replaced or taken out while the others are not there, and the sum
is that of a training from nothing over the same lesions.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Self

import numpy as np

from common.errors import DataError
from common.statistics.moments import Moments
from common.storage.verified import read_arrays, write_arrays
from common.task import Task

_FILE = "moments.safetensors"


@dataclass(frozen=True)
class KeptMoments:
    """Moments by site's name.

    Attributes
    ----------
    task : whose classes they are by.
    """

    by_site: Mapping[str, Moments]
    task: Task

    def total(self) -> Moments:
        """Return the sum, added in the order of the names, as those of a federation are."""
        first, *others = [self.by_site[name] for name in sorted(self.by_site)]
        for each in others:
            first = first + each
        return first

    def check(self, leaving: tuple[str, ...]) -> None:
        """Raise a :class:`DataError` if a site that is ``leaving`` has no share in them."""
        if unknown := [name for name in leaving if name not in self.by_site]:
            raise DataError(
                f"'leaving' is {unknown[0]}, which has no share in the sums of 'parent'; in them "
                f"are {', '.join(sorted(self.by_site))}"
            )

    def updated(self, fresh: Mapping[str, Moments], leaving: tuple[str, ...], task: Task) -> Self:
        """Return them with ``fresh`` ones in the place of former ones, by the classes of ``task``.

        Raises
        ------
        DataError
            If a site that is ``leaving`` has no share in them, or none is left.
        """
        self.check(leaving)
        former = {
            name: _for_task(moments, self.task, task)
            for name, moments in self.by_site.items()
            if name not in leaving
        }
        if not (now := {**former, **fresh}):
            raise DataError(f"no site is left where {', '.join(leaving)} leaves; begin a new run")
        return type(self)(now, task)

    def save(self, folder: Path) -> None:
        """Write them into a run's folder.

        Raises
        ------
        DataError
            If they cannot be written.
        """
        arrays = {
            f"{site}/{name}": array
            for site, moments in self.by_site.items()
            for name, array in moments.to_record().items()
        }
        write_arrays(folder / _FILE, arrays, {"diagnoses": list(self.task.codes)})

    @classmethod
    def load(cls, folder: Path, task: Task) -> Self:
        """Read those of a run of a task.

        Raises
        ------
        DataError
            If the folder has none, or they are damaged.
        """
        try:
            arrays, about = read_arrays(folder / _FILE)
        except FileNotFoundError as error:
            raise DataError(
                f"{folder} keeps no sums of its sites, from which to go on: only runs with "
                "head=ridge or head=lda and without secure sums do; train over all sites again"
            ) from error
        assert about["diagnoses"] == list(task.codes)
        sites = sorted({name.rpartition("/")[0] for name in arrays})
        names = [f.name for f in fields(Moments)]
        read = {site: Moments(*(arrays[f"{site}/{name}"] for name in names)) for site in sites}
        return cls(read, task)


def _for_task(moments: Moments, task: Task, new: Task) -> Moments:
    """Return moments by the classes of another task, which has those of theirs."""
    places = [new.codes.index(code) for code in task.codes]
    weight = np.zeros(new.n_classes)
    sums = np.zeros((new.n_classes, moments.class_sum.shape[1]))
    weight[places], sums[places] = moments.class_weight, moments.class_sum
    return Moments(weight, sums, moments.gram)
