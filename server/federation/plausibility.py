"""Refuses sums that no images can give, where the coordinator sees each site's answer.

A false sum that some images could give passes, and an exact sum cannot outvote it.
"""

import numpy as np

from common.arrays import Floats
from common.errors import ReplyError
from common.statistics.moments import Moments
from common.svm.objective import HingeSums
from common.task import Task

_ROUNDING = 1e-6
_DEFINITE = 1e-8
"""Tolerance, as a share of a feature's second moment: rounding errors are smaller."""


def check_moments(task: Task, moments: Moments, images: int) -> None:
    """Refuse moments that are not of records.

    The second moments around the means of the classes are positive semidefinite, and a class
    without images adds nothing. That no class counts more than ``images`` is checked before.

    Parameters
    ----------
    task : names the classes.

    Raises
    ------
    ReplyError
        If they are not.
    """
    count, total = moments.class_weight, moments.class_sum
    absent = count == 0
    for k in np.flatnonzero(absent & total.any(axis=1)):
        raise ReplyError(f"sums features of diagnosis {task.codes[k]}, of which it has no images")
    means = total[~absent] / count[~absent, None]
    second = moments.second()
    within = second - (means * count[~absent, None]).T @ means
    scale = np.sqrt(np.maximum(np.diag(second), 0.0))
    scale[scale == 0] = 1.0
    try:
        np.linalg.cholesky(within / np.outer(scale, scale) + _DEFINITE * np.eye(len(scale)))
    except np.linalg.LinAlgError as error:
        raise ReplyError(
            "no records have its second moments: around the means they are not positive "
            "semidefinite"
        ) from error


class HingeLimits:
    """How large losses and gradients can be, by the moments of all sites' mapped records.

    Parameters
    ----------
    task : names the classes.
    moments : the moments of the mapped records of all sites.
    class_weights : (n_classes,).
    clip : largest norm of a mapped record; 0 for any.
    """

    def __init__(self, task: Task, moments: Moments, class_weights: Floats, clip: float) -> None:
        self._task = task
        total = moments.class_sum.sum(axis=0)
        self._second = np.block([[moments.second(), total[:, None]], [total, moments.weight]])
        self._largest = float(np.linalg.eigvalsh(self._second)[-1])
        self._weight = float(class_weights.max())
        self._clip = clip

    def check(self, sums: HingeSums, weights: Floats, images: int) -> None:
        """Refuse sums over ``images`` images at ``weights`` (n_fits, n_classes, n_outputs + 1).

        A record's slack is at most 1 + |w.x|, and so the loss at most 2 s (n + w.G w), where G is
        the second moment of all records with the intercept and s the largest class weight. By
        Cauchy and Schwarz a gradient's norm is at most twice the root of s, the loss and G's
        largest eigenvalue. Where records are clipped, n times the square of their norm is in G's
        place if that is less.

        Raises
        ------
        ReplyError
            If they are larger, with the diagnosis.
        """
        scores = np.einsum("fkd,de,fke->fk", weights, self._second, weights)
        largest = self._largest
        if self._clip:
            reach = images * (self._clip**2 + 1)
            scores = np.minimum(scores, reach * np.einsum("fkd,fkd->fk", weights, weights))
            largest = min(largest, reach)
        loss = 2 * self._weight * (images + scores)
        self._compare("loss", sums.loss, loss, f"{images} images at these weights")
        pull = 4 * self._weight * largest
        norms = np.linalg.norm(sums.gradient, axis=2)
        self._compare(
            "gradient", norms, np.sqrt(pull * sums.loss), f"{images} images and their loss"
        )

    def _compare(self, what: str, values: Floats, most: Floats, why: str) -> None:
        for fit, k in np.argwhere(values > most * (1 + _ROUNDING)):
            raise ReplyError(
                f"{what} of diagnosis {self._task.codes[k]} is {values[fit, k]:g}, at most "
                f"{most[fit, k]:g} can come of {why}"
            )
