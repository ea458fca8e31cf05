"""Groups that count alike in training: their images over all sites, and what follows from them."""

import logging
from typing import NamedTuple

import numpy as np

from common.arrays import Floats, Ints
from common.config.run import RunConfig
from common.data.balance import GROUP_COUNTS, MOST_WEIGHT, BalancedGroups, GroupImages
from server.federation.federation import Federation
from server.federation.question import LossPolicy, Question

_log = logging.getLogger(__name__)


def group_question(groups: BalancedGroups, n_classes: int) -> Question[GroupImages]:
    """Return the question for the images of each diagnosis and group."""
    return Question(GROUP_COUNTS, GroupImages.zero(n_classes, groups.size))


def warn_of_groups(groups: BalancedGroups, counts: Ints) -> None:
    """Say which part of the weights cannot be as asked for.

    Parameters
    ----------
    counts : (n_classes, n_groups) images of each diagnosis and group over all sites.
    """
    share = counts[:, -1].sum() / max(counts.sum(), 1)
    if share > 1 / 2:
        _log.warning(
            "'balance_groups': %s is unknown in %.0f %% of the training images, whose weights stay "
            "as they are; `fedderm data check` at the sites says why",
            *(groups.dimension.name, 100 * share),
        )
    if capped := groups.capped(counts):
        _log.warning(
            "'balance_groups': %d of %d groups of a diagnosis by %s are so small that even with "
            "the largest weight, %g, they count less than the others",
            *(capped, int((groups.together(counts) > 0).sum()), groups.dimension.name, MOST_WEIGHT),
        )


def balance_facts(config: RunConfig) -> dict[str, object]:
    """Return what the model card says of balanced groups."""
    text = config.balance_groups
    return {"balanced groups": f"{text}, within each diagnosis"} if config.balanced_groups else {}


class Weighting(NamedTuple):
    """What a training record weighs: by its diagnosis, and within it by its group.

    Attributes
    ----------
    classes : (n_classes,) weight of a record of each class.
    groups, counts : the groups, and their images (n_classes, n_groups); None without.
    """

    classes: Floats
    groups: BalancedGroups | None = None
    counts: Ints | None = None

    @property
    def largest(self) -> Floats:
        """The largest weight of a record of each class, (n_classes,)."""
        if self.groups is None or self.counts is None:
            return self.classes
        largest: Floats = self.groups.weights(self.counts).max(axis=1)
        return self.classes * largest

    def to_record(self) -> dict[str, Floats]:
        """Return what goes to the sites: (n_classes,) and (n_classes, n_groups)."""
        record = {"class_weights": self.classes}
        if self.counts is None:
            return record
        return record | {GROUP_COUNTS: np.asarray(self.counts, dtype=np.float64)}


def weigh(federation: Federation, config: RunConfig, classes: Floats) -> Weighting:
    """Return what records weigh in an exact method; groups that count alike are counted for it.

    Parameters
    ----------
    classes : (n_classes,) weight of a record of each class.
    """
    if (groups := config.balanced_groups) is None:
        return Weighting(classes)
    question = group_question(groups, config.task.n_classes)
    counts = federation.total(question, LossPolicy.RESTART).images
    warn_of_groups(groups, counts)
    return Weighting(classes, groups, counts)
