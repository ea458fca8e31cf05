"""Deletion and insertion: whether the answer rests on where its evidence lies [1]_.

References
----------
.. [1] Petsiuk, Das, Saenko, "RISE: Randomized Input Sampling for Explanation of Black-box Models",
   BMVC 2018, section 4.3.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from common.arrays import Bools, Floats, Ints
from common.features.augment import crop_box
from simulations.experiments.explanations.photo import Photo

GRID = 7
"""Fields along a side of the largest view: as many as the default final map has at 224 pixels."""

SHARES = (1 / 16, 1 / 8, 1 / 4, 1 / 2)
"""Of the fields, how many are deleted or inserted, between none and all."""

ORDERS = (BY_MAP, BY_CHANCE, FROM_MIDDLE) = ("by the map", "by chance", "from the middle")
"""Names of the orders in which fields are deleted or inserted."""

Score = Callable[[Sequence[bytes]], Floats]
"""Gives the probability of one diagnosis (n,) for n image files."""


def orders(pixels: Floats, size: tuple[int, int], seed: Sequence[int]) -> Mapping[str, Ints]:
    """Return orders (m,) of the m fields, by name: by the map, by chance, from the middle.

    Parameters
    ----------
    pixels : (height, width) evidence of each pixel; the most positive field comes first.
    size : width and height.
    """
    evidence = [pixels[field].mean() for field in fields(size)]
    y, x = np.mgrid[:GRID, :GRID] - (GRID - 1) / 2
    return {
        BY_MAP: np.argsort(evidence, kind="stable")[::-1],
        BY_CHANCE: np.random.default_rng(seed).permutation(GRID**2),
        FROM_MIDDLE: np.argsort(np.hypot(x, y).ravel(), kind="stable"),
    }


def fields(size: tuple[int, int]) -> Iterator[tuple[slice, slice]]:
    """Yield the rows and columns of each field of the largest view, row by row.

    Parameters
    ----------
    size : width and height of the image.
    """
    left, top, right, bottom = crop_box(size, 0)
    rows = np.linspace(top, bottom, GRID + 1).round().astype(int).tolist()
    columns = np.linspace(left, right, GRID + 1).round().astype(int).tolist()
    for y in range(GRID):
        for x in range(GRID):
            yield slice(*rows[y : y + 2]), slice(*columns[x : x + 2])


def areas(photo: Photo, by: Mapping[str, Ints], score: Score) -> dict[str, tuple[float, float]]:
    """Return the areas under the deletion and the insertion curve, in [0, 1], of each order.

    Deleted fields have the colour of the image's skin. A good order has a small area under its
    deletion curve and a large one under its insertion curve.

    Parameters
    ----------
    by : orders (m,) of the m fields by name.
    """
    every = np.ones(GRID**2, dtype=np.bool_)
    files = [photo.png(), without(photo, every).png()]
    for order in by.values():
        first = [_first(order, share) for share in SHARES]
        files += [without(photo, chosen).png() for chosen in first]
        files += [without(photo, ~chosen).png() for chosen in first]
    whole, blank, *rest = score(files)
    curves = np.reshape(rest, (len(by), 2, len(SHARES)))
    return {
        name: (_area(whole, deleted, blank), _area(blank, inserted, whole))
        for name, (deleted, inserted) in zip(by, curves, strict=True)
    }


def without(photo: Photo, deleted: Bools) -> Photo:
    """Return the image with the colour of skin in some of the m fields of the largest view.

    Parameters
    ----------
    deleted : (m,) which ones.
    """
    pixels = photo.pixels.copy()
    for field, gone in zip(fields(photo.size), deleted, strict=True):
        if gone:
            pixels[field] = photo.skin_colour
    return replace(photo, pixels=pixels)


def _first(order: Ints, share: float) -> Bools:
    chosen = np.zeros(len(order), dtype=np.bool_)
    chosen[order[: round(share * len(order))]] = True
    return chosen


def _area(start: float, between: Floats, end: float) -> float:
    return float(np.trapezoid([start, *between, end], [0, *SHARES, 1]))
