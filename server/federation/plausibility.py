"""Refuses sums that no images can give, where the coordinator sees each site's answer.

A false sum that some images could give passes, and an exact sum cannot outvote it.
"""

import numpy as np

from common.answers.group_counts import GroupCounts, ScreeningCounts
from common.answers.paired import GroupPairs, PairedCounts
from common.arrays import Floats
from common.data.counted_groups import CountedGroups
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


def check_groups(groups: CountedGroups, counts: GroupCounts, images: int) -> None:
    """Refuse counts by group of more images than a site has, or that are not of the same ones.

    Parameters
    ----------
    groups : what was counted.
    counts : a site's counts.
    images : how many it has.

    Raises
    ------
    ReplyError
        If they are.
    """
    of_group = counts.confusion.sum(axis=(1, 2))
    for dimension, place in groups.places():
        if (total := int(of_group[place].sum())) > images:
            raise ReplyError(
                f"groups by {dimension.name} add up to {total} images, it has {images} images"
            )
    screened = counts.screening.sum(axis=(2, 3))
    if (
        (counts.lesions > of_group).any()
        or (counts.calibration[:, 0].sum(axis=1) != of_group).any()
        or (screened != of_group[:, None]).any()
    ):
        raise ReplyError("counts of a group are not all of the same images")


def check_screening(counts: ScreeningCounts, images: int) -> None:
    """Refuse counts for thresholds by group that are not all of the same lesions.

    That they are of no more than ``images`` is checked before.

    Raises
    ------
    ReplyError
        If they are not.
    """
    if (counts.screening.sum(axis=(2, 3)) != counts.lesions[:, None]).any():
        raise ReplyError(
            f"of its {images} images, counts of a group of patients are not all of the same ones"
        )


def check_pairs(counts: PairedCounts, images: int) -> None:
    """Refuse counts of two models that are not all of the same lesions.

    That they are of no more than ``images`` is checked before.

    Raises
    ------
    ReplyError
        If they are not.
    """
    _check_same(counts, images)


def check_group_pairs(groups: CountedGroups, counts: GroupPairs, images: int) -> None:
    """Refuse the same by group, or groups of more lesions than a site has images.

    Parameters
    ----------
    groups : what was counted.

    Raises
    ------
    ReplyError
        If they are.
    """
    _check_same(counts, images)
    if (counts.correct.sum(axis=(1, 2, 3)) != counts.lesions).any():
        raise ReplyError("counts of a group are not all of the same lesions")
    for dimension, place in groups.places():
        if (total := int(counts.lesions[place].sum())) > images:
            raise ReplyError(
                f"groups by {dimension.name} add up to {total} lesions, it has {images} images"
            )


def _check_same(counts: PairedCounts | GroupPairs, images: int) -> None:
    by_class = counts.correct.sum(axis=(-2, -1))
    others = (counts.covered, counts.flagged)
    if any((each.sum(axis=(-2, -1)) != by_class).any() for each in others):
        raise ReplyError(
            f"of its {images} images, counts of two models are not all of the same lesions"
        )


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
