"""What tables and images are like: histograms over images and lesions, which sites add."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from common.arrays import Bools, Ints
from common.data.groups import COLUMNS, HISTOGRAMS, groups
from common.statistics.confusion import count
from common.statistics.small_groups import small_lines
from common.statistics.sums import Sums
from common.task import Task

IMAGES, LESIONS = 0, 1
"""Places of the two units in a histogram."""


@dataclass(frozen=True)
class GroupedImages:
    """The n images of a site, each in one group of every histogram.

    Attributes
    ----------
    lesions : (n,) numbers of their lesions at this site.
    numbers : (n,) numbers of their groups, by histogram.
    filled : (n, columns) whether a row has a value in each of the columns.
    """

    lesions: Ints
    numbers: Mapping[str, Ints]
    filled: Bools

    def select(self, indices: Ints) -> Self:
        """Return the images at ``indices`` (m,)."""
        numbers = {name: each[indices] for name, each in self.numbers.items()}
        return type(self)(self.lesions[indices], numbers, self.filled[indices])


@dataclass(frozen=True)
class DataCounts(Sums):
    """Counts of images, and of lesions with such an image, by group.

    A histogram is (2, groups + 1): images, then lesions. Its last group holds those that are too
    small to be counted apart, together. A lesion may be in several groups, by several images.

    Attributes
    ----------
    diagnosis, age, sex, localization, skin_tone : (2, groups + 1), the groups of
        :func:`common.data.groups.groups`.
    short_side, brightness, sharpness, defect : (2, groups + 1), as above.
    filled : (columns, 2, 3) for each column those with a value, those without, and both together
        where one of the two is small.
    columns : (columns,) number of sites whose table has each column, with values of as many lesions
        as are counted apart.
    """

    nonnegative: ClassVar[tuple[str, ...]] = (*HISTOGRAMS, "filled", "columns")

    diagnosis: Ints
    age: Ints
    sex: Ints
    localization: Ints
    skin_tone: Ints
    short_side: Ints
    brightness: Ints
    sharpness: Ints
    defect: Ints
    filled: Ints
    columns: Ints

    @classmethod
    def zero(cls, task: Task) -> Self:
        """Return the counts of no images."""
        none = np.zeros(0, dtype=np.int64)
        empty = np.zeros((0, len(COLUMNS)), dtype=np.bool_)
        return cls.measure(GroupedImages(none, dict.fromkeys(HISTOGRAMS, none), empty), task)

    @classmethod
    def measure(cls, images: GroupedImages, task: Task, least: int = 0) -> Self:
        """Count images.

        Parameters
        ----------
        least : smallest number of lesions that is counted apart. Smaller groups are counted
            together, with the next larger ones until they are as many; if all are fewer, not at
            all.
        """
        histograms = {
            name: _histogram(images.numbers[name], images.lesions, len(groups(name, task)), least)
            for name in HISTOGRAMS
        }
        empty = 1 - images.filled.astype(np.int64)
        filled = [_histogram(column, images.lesions, 2, least) for column in empty.T]
        having = [len(np.unique(images.lesions[column])) for column in images.filled.T]
        columns = np.greater_equal(having, max(least, 1)).astype(np.int64)
        return cls(**histograms, filled=np.stack(filled), columns=columns)


def _histogram(numbers: Ints, lesions: Ints, size: int, least: int) -> Ints:
    """Count images and lesions (2, size + 1) in ``size`` groups and in that of the small ones."""
    small = small_lines(numbers, np.zeros_like(numbers), lesions, (size, 1), least)
    if small is None:
        return np.zeros((2, size + 1), dtype=np.int64)
    placed = np.where(small[numbers], size, numbers)
    pairs = np.unique(np.stack([placed, lesions]), axis=1)
    return np.stack([count((size + 1,), placed), count((size + 1,), pairs[0])])
