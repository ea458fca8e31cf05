"""The groups of lesions that hospitals count apart: closed lists, never a table's own words."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Self

import numpy as np

from common.arrays import Ints
from common.data.dimensions import CROSS, Dimension, read_dimensions
from common.data.groups import DECADES, SMALL, listed, numbers
from common.data.image import Image
from common.errors import ConfigError
from common.statistics.small_groups import small_lines
from common.task import Task

SITE = "site"
"""The dimension whose groups are the sites: each counts its own lesions as one group."""

MOST = 160
"""Most groups that are counted; each takes some 30 kB of a site's answer."""

_NONE = -1


@dataclass(frozen=True)
class CountedGroups:
    """The groups of some dimensions, one after the other in one list.

    Attributes
    ----------
    dimensions : by what lesions are put into groups.
    """

    dimensions: tuple[Dimension, ...]

    @classmethod
    def read(cls, text: str) -> Self:
        """Read dimensions as ``sex,age,sex*age``; "" for none.

        Raises
        ------
        ConfigError
            If a name is not known, or hospitals do not count such groups, or not so many.
        """
        found = cls(read_dimensions(text) if text.strip() else ())
        for dimension in found.dimensions:
            if dimension.edges != DECADES:
                raise ConfigError(
                    f"'{text}' sets edges of ages, but hospitals count ages by decades: two runs "
                    "with other edges would tell those between; write age"
                )
            if len(dimension.columns) > 1 and SITE in dimension.columns:
                raise ConfigError(
                    f"'{dimension.name}' crosses sites, but groups are added over them; write "
                    "site, or the other column alone"
                )
        if found.size > MOST:
            raise ConfigError(
                f"'{text}' makes {found.size} groups, at most {MOST} are counted; name fewer"
            )
        return found

    @property
    def size(self) -> int:
        """Number of groups of all dimensions, with one for small ones in each."""
        return sum(len(self.names(dimension)) for dimension in self.dimensions)

    def names(self, dimension: Dimension) -> tuple[str, ...]:
        """Return the names of a dimension's groups, in order; the last is `SMALL`."""
        lists = [_listed(column) for column in dimension.columns]
        return (*map(CROSS.join, product(*lists)), SMALL)

    def places(self) -> list[tuple[Dimension, slice]]:
        """Return each dimension and where its groups stand among all."""
        ends = np.cumsum([len(self.names(dimension)) for dimension in self.dimensions]).tolist()
        starts = [0, *ends[:-1]]
        return [(d, slice(*at)) for d, *at in zip(self.dimensions, starts, ends, strict=True)]

    def of(self, images: Sequence[Image], lesions: Ints, task: Task, least: int) -> Ints:
        """Return the group of each image in each dimension, (dimensions, n); -1 for none.

        Parameters
        ----------
        images : n images.
        lesions : (n,) numbers of their lesions.
        task : the diagnoses of the run.
        least : smallest number of lesions that is counted apart.
        """
        found = [
            place.start + _placed(d, images, lesions, task, least) for d, place in self.places()
        ]
        starts = [[place.start] for _, place in self.places()]
        return np.where(np.array(found) < starts, _NONE, found).reshape(len(found), len(images))


def _placed(
    dimension: Dimension, images: Sequence[Image], lesions: Ints, task: Task, least: int
) -> Ints:
    """Return the numbers (n,) of images' groups in a dimension, -1 for none."""
    columns = dimension.columns
    parts = [_numbers(column, images, task) for column in columns]
    sizes = [len(_listed(column)) for column in columns]
    cell = np.ravel_multi_index(parts, sizes).astype(np.int64)
    # Of a crossing, lines are those of the column with more groups: fewer cells go together.
    by = int(np.argmax([len(np.unique(part)) for part in parts]))
    other = 1 - by if len(columns) > 1 else by
    across = parts[other] if len(columns) > 1 else np.zeros_like(cell)
    shape = (sizes[by], sizes[other] if len(columns) > 1 else 1)
    small = small_lines(parts[by], across, lesions, shape, least)
    if small is None:
        return np.full(len(images), _NONE, dtype=np.int64)
    return np.where(small[parts[by]], int(np.prod(sizes)), cell)


def _listed(column: str) -> tuple[str, ...]:
    return ("all",) if column == SITE else listed(column)


def _numbers(column: str, images: Sequence[Image], task: Task) -> Ints:
    if column == SITE:
        return np.zeros(len(images), dtype=np.int64)
    return numbers(column, [getattr(image, column) for image in images], task)
