"""Weights that make groups of lesions count alike in training, within each diagnosis.

Sites count their training images by diagnosis and group; from the added counts follow the weights,
the same ones wherever the lesions lie. A diagnosis keeps the total that it has without them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Self

import numpy as np

from common.arrays import Floats, Ints
from common.data.dimensions import (
    AGE,
    Dimension,
    joined_decades,
    read_dimensions,
    refuse_within_decades,
)
from common.data.groups import MISSING, OTHER, listed, numbers
from common.data.image import Image
from common.errors import ConfigError
from common.statistics.confusion import count
from common.statistics.sums import Sums
from common.task import Task

GROUP_COUNTS = "group_counts"
"""Question for a site's counts, and name of the array of those of all sites."""

MOST_WEIGHT = 5.0
"""Of an image, in averages of its diagnosis: what a handful of lesions show is mostly chance."""

COLUMNS = ("sex", AGE, "localization", "skin_tone")
"""What groups that are balanced may be of."""


@dataclass(frozen=True)
class GroupImages(Sums):
    """Number of training images of each diagnosis in each group, (n_classes, n_groups)."""

    nonnegative: ClassVar[tuple[str, ...]] = ("images",)
    counted: ClassVar[str | None] = "images"

    images: Ints

    @classmethod
    def zero(cls, n_classes: int, n_groups: int) -> Self:
        """Return the counts of no images."""
        return cls(np.zeros((n_classes, n_groups), dtype=np.int64))

    @classmethod
    def measure(cls, labels: Ints, groups: Ints, n_classes: int, n_groups: int) -> Self:
        """Count images by their ``labels`` (n,) and ``groups`` (n,)."""
        return cls(count((n_classes, n_groups), labels, groups))


@dataclass(frozen=True)
class BalancedGroups:
    """The groups that count alike: those of a column, or of two that are crossed.

    Attributes
    ----------
    dimension : by what lesions are put into groups.
    """

    dimension: Dimension

    @classmethod
    def read(cls, text: str) -> Self:
        """Read a column or a crossing of two, as ``sex``, ``age:40,60`` or ``sex*age:40,60``.

        Raises
        ------
        ConfigError
            If it names none or several, one that cannot be balanced, or edges within a decade.
        """
        found = read_dimensions(text)
        if len(found) > 1:
            names = "*".join(dimension.name for dimension in found[:2])
            raise ConfigError(
                f"'{text}' names several groupings; write one, or cross two as {names}"
            )
        odd = [column for column in found[0].columns if column not in COLUMNS]
        if odd:
            why = " ('strategy=qfedavg' is for sites)" if odd == ["site"] else ""
            raise ConfigError(f"no weights by '{odd[0]}'{why}; take from {', '.join(COLUMNS)}")
        refuse_within_decades(text, found[0])
        return cls(found[0])

    @property
    def size(self) -> int:
        """Number of groups that are counted, with one for what is unknown, the last."""
        return int(np.prod([len(_known(column)) for column in self.dimension.columns])) + 1

    def of(self, images: Sequence[Image], task: Task) -> Ints:
        """Return the number of the group of each of n images, (n,).

        The last is that of images of which a column is empty, or has a word that is in no list.
        """
        columns = self.dimension.columns
        parts = [numbers(c, [getattr(image, c) for image in images], task) for c in columns]
        sizes = [len(_known(column)) for column in columns]
        known = np.all([part < n for part, n in zip(parts, sizes, strict=True)], axis=0)
        cells = np.ravel_multi_index(
            [np.minimum(part, n - 1) for part, n in zip(parts, sizes, strict=True)], sizes
        )
        return np.where(known, cells, self.size - 1)

    def together(self, counts: Floats | Ints) -> Floats:
        """Return counts (n_classes, size) of the groups that are weighed, (n_classes, n_weighed).

        The last group is what is unknown, as in ``counts``.
        """
        n_weighed = int(self._weighed.max()) + 1
        return np.asarray(counts @ np.eye(n_weighed)[self._weighed], dtype=np.float64)

    def weights(self, counts: Floats | Ints) -> Floats:
        """Return what an image of each diagnosis and group weighs, (n_classes, size).

        In each diagnosis all groups have the same total, but where an image would weigh more than
        `MOST_WEIGHT` averages of its diagnosis, or more than 1 in the unknown group; then the
        others share what is left. So the mean over the images of a diagnosis is 1. A group without
        images has 1.

        Parameters
        ----------
        counts : (n_classes, size) numbers of images over all sites.
        """
        together = self.together(counts)
        most = np.full(together.shape[1], MOST_WEIGHT)
        most[-1] = 1.0
        return np.stack([_weights(row, most) for row in together])[:, self._weighed]

    def capped(self, counts: Floats | Ints) -> int:
        """Return how many groups of a diagnosis are too small to have as much as others.

        Parameters
        ----------
        counts : (n_classes, size) numbers of images over all sites.
        """
        first = np.unique(self._weighed, return_index=True)[1]
        there = self.together(counts) > 0
        return int((there & (self.weights(counts)[:, first] >= MOST_WEIGHT)).sum())

    @cached_property
    def _weighed(self) -> Ints:
        """The group among those that are weighed of each one that is counted, (size,)."""
        parts = [_weighed(column, self.dimension) for column in self.dimension.columns]
        cells = np.ravel_multi_index(np.ix_(*parts), [int(part.max()) + 1 for part in parts])
        return np.append(cells.ravel(), int(cells.max()) + 1)


def _known(column: str) -> tuple[str, ...]:
    return tuple(name for name in listed(column) if name not in (OTHER, MISSING))


def _weighed(column: str, dimension: Dimension) -> Ints:
    if column != AGE:
        return np.arange(len(_known(column)))
    return joined_decades(dimension.edges)


def _weights(images: Floats, most: Floats) -> Floats:
    """Return the weights (n,) of images of n groups, none above ``most`` (n,), of mean 1.

    The total that groups share is found from the group that can have least upwards.
    """
    largest = images * most
    left, groups, level = images.sum(), int((images > 0).sum()), 0.0
    for total in np.sort(largest[images > 0]):
        level = left / groups
        if total >= level:
            break
        left, groups = left - total, groups - 1
    ones = np.ones_like(images)
    return np.divide(np.minimum(largest, level), images, out=ones, where=images > 0)
