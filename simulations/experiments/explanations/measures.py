"""What is measured of one map: where its evidence lies, and how much of that is the map's doing.

The expectation is evidence that is spread evenly over what each view sees. Inner views are small
and weigh as much as large ones, and lesions lie in the middle: so even a map that says nothing has
more evidence in the lesion than the lesion's share of the area.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from common.arrays import Bools, Floats
from common.explanations.evidence import Evidence
from common.explanations.overlay import place
from common.features.augment import CROPS

_COARSE = 8  # times fewer pixels in both directions where ranks are compared
_TIE = 1e-9


@dataclass(frozen=True)
class Part:
    """Which levels and crops of a map are looked at.

    Attributes
    ----------
    name : what tables call it.
    level, crop : numbers of the only ones; None for all.
    """

    name: str
    level: int | None = None
    crop: int | None = None

    def of(self, evidence: Evidence) -> Evidence:
        """Return the evidence with nothing in other levels and crops; by level, as it was."""
        return Evidence([self._kept(n, cells) for n, cells in enumerate(evidence.cells)], 0.0)

    def _kept(self, level: int, cells: Floats) -> Floats:
        crops = np.arange(len(cells)) % len(CROPS)
        wanted = (self.crop is None) | (crops == self.crop)
        return np.asarray(cells * (wanted & (self.level in (None, level)))[:, None, None])


WHOLE = Part("whole map")


def parts(evidence: Evidence) -> Iterator[Part]:
    """Yield the whole map, then each of its levels and crops where there are several."""
    yield WHOLE
    levels = len(evidence.cells)
    for level, cells in enumerate(evidence.cells):
        if levels > 1:
            fields = f"{cells.shape[1]} x {cells.shape[2]} fields"
            yield Part(f"level {level + 1} of {levels}, {fields}", level=level)
    views = len(evidence.cells[0])
    for crop, side in enumerate(CROPS[:views]):
        if views > 1:
            yield Part(f"crop of {100 * side:g} % of the short side", crop=crop)


def spread_evenly(evidence: Evidence) -> Evidence:
    """Return evidence of the same form that is the same in all cells of a level; 0 stays 0.

    A level, or a view, without any evidence has none then either.
    """
    return Evidence([_even(cells) for cells in evidence.cells], 0.0)


def _even(cells: Floats) -> Floats:
    used = cells.any(axis=(1, 2), keepdims=True)
    return np.where(used, np.full_like(cells, 1 / cells[0].size), 0.0)


def share(amounts: Floats, inside: Bools) -> float:
    """Return which share of the positive amounts lies inside; nan where nothing is positive.

    Parameters
    ----------
    amounts : (height, width) evidence of each pixel.
    inside : (height, width).
    """
    positive = np.maximum(amounts, 0)
    total = positive.sum()
    return float(positive[inside].sum() / total) if total > 0 else float("nan")


def pointing(amounts: Floats, inside: Bools) -> float:
    """Return which share of the pixels with the largest amount lies inside, in [0, 1].

    Cells have many pixels, so that one pixel alone would be a matter of rounding.

    Parameters
    ----------
    amounts, inside : (height, width).
    """
    largest = amounts.max()
    return float(inside[amounts >= largest - _TIE * abs(largest)].mean())


@dataclass(frozen=True)
class Location:
    """Where one part of a map lies; shares in [0, 1].

    Attributes
    ----------
    area : the lesion's share of the image.
    expected : its share of evidence that is spread evenly over what the views see.
    share : its share of the positive evidence; nan where there is none.
    against : its share of the negative evidence; nan where there is none.
    other : its share of the positive evidence that another image's map has.
    pointing : whether the most positive place is in the lesion.
    middle : whether the place that most views see is.
    """

    area: float
    expected: float
    share: float
    against: float
    other: float
    pointing: float
    middle: float


def locate(part: Part, evidence: Evidence, other: Evidence, lesion: Bools) -> Location:
    """Measure where a part of a map lies.

    Parameters
    ----------
    other : the evidence of another image, which is laid over this one.
    lesion : (height, width).
    """
    height, width = lesion.shape
    pixels, even, elsewhere = (
        place(each, width, height)
        for each in (part.of(evidence), spread_evenly(part.of(evidence)), part.of(other))
    )
    return Location(
        area=float(lesion.mean()),
        expected=share(even, lesion),
        share=share(pixels, lesion),
        against=share(-pixels, lesion),
        other=share(elsewhere, lesion),
        pointing=pointing(pixels, lesion),
        middle=pointing(even, lesion),
    )


def rank_correlation(
    first: Evidence, second: Evidence, width: int, height: int
) -> tuple[float, float]:
    """Return Spearman's correlation of two maps of an image, in [-1, 1]; nan if one is constant.

    Once of the evidence with its sign, once of its size; at an eighth of the image's resolution,
    where a view sees anything. Each place is divided by how much the views see of it: where they
    overlap, any two maps would agree that there is more.
    """
    from scipy.stats import spearmanr

    small = (width // _COARSE, height // _COARSE)
    seen, a, b = (place(each, *small) for each in (spread_evenly(first), first, second))
    a, b = (each[seen > 0] / seen[seen > 0] for each in (a, b))
    signed, size = spearmanr(a, b), spearmanr(np.abs(a), np.abs(b))
    return float(signed.statistic), float(size.statistic)
