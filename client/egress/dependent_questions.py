"""Refuses an SVM's question that depends on earlier ones, because the sums would show records.

A sum of gradients is piecewise linear in the weights: it bends only where a record crosses the
margin. Where points depend on each other (three on a line, four in a plane), the coordinator can
take a difference of their sums in which the linear part of all records cancels. The few records
that crossed the margin are left. A solver needs no such points, because each of its steps has a new
direction. Questions of several runs are not compared, because honest runs reach about the same
points; the operator's ``rounds`` bound those.
"""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from common.arrays import Floats
from common.errors import Reason, RefusalError
from common.storage.verified import map_array, write_array

_INDEPENDENT = 1e-3
"""Least distance from the space of earlier points, over that from the nearest of them. Solving on
HAM10000 keeps 1.4e-2 or more."""

_ALL = -1


class Lines:
    """The questions of a run under one map, on disk.

    Parameters
    ----------
    folder : the folder of these questions alone.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(self, weights: Floats) -> None:
        """Remember ``weights`` (n_fits, n_classes, n_outputs + 1), which are to be answered.

        Raises
        ------
        RefusalError
            If it depends, in one of its problems, on others.
        """
        files = sorted(self._folder.glob("*.npy"))
        before: dict[tuple[int, int], list[Floats]] = defaultdict(list)
        for file in files:
            for problem, point in _points(map_array(file)):
                before[problem].append(point)
        for problem, point in _points(weights):
            if depends(point, np.array(before[problem])):
                raise RefusalError(
                    Reason.LINE,
                    f"the weights of class {problem[1]} depend on earlier ones",
                )
        write_array(self._folder / f"{len(files):06}.npy", weights)


def depends(point: Floats, others: Floats) -> bool:
    """Tell whether a point (d,) lies in the affine space of ``others`` (n, d).

    A point that is itself among ``others`` tells nothing new, and does not count as dependent.
    """
    if len(others) < 2:
        return False
    distances = np.linalg.norm(others - point, axis=1)
    if not distances.all():
        return False
    nearest = others[distances.argmin()]
    apart, rest = others - nearest, point - nearest
    lengths = np.linalg.norm(apart, axis=1)
    axes = np.linalg.qr((apart[lengths > 0] / lengths[lengths > 0, None]).T)[0]
    left = rest - axes @ (axes.T @ rest)
    return bool(np.linalg.norm(left) < _INDEPENDENT * np.linalg.norm(rest))


def _points(weights: Floats) -> Iterator[tuple[tuple[int, int], Floats]]:
    """Yield the point of each fit and class, and that of all lesions where the fits' points agree.

    The sums of fits that leave out one fold each add up to a multiple of the whole.
    """
    fits = len(weights)
    for number, fit in enumerate(weights):
        for k, point in enumerate(fit):
            yield (number if fits > 1 else _ALL, k), point
    if fits > 1:
        for k, mean in enumerate(weights.mean(axis=0)):
            apart = np.linalg.norm(weights[:, k] - mean, axis=1)
            if (apart <= _INDEPENDENT * np.linalg.norm(mean)).all():
                yield (_ALL, k), mean
