"""A site's images by the groups that a run balances: how many there are, and what each weighs."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from client.site import Site
from common.arrays import Floats, Ints
from common.data.balance import GROUP_COUNTS, BalancedGroups, GroupImages
from common.errors import Reason, RefusalError


def balanced_groups(site: Site) -> BalancedGroups:
    """Return the groups of the site's run.

    Raises
    ------
    RefusalError
        If it balances none.
    """
    if (groups := site.config.balanced_groups) is None:
        raise RefusalError(Reason.FORM, "this run balances no groups")
    return groups


def count_groups(site: Site, images: Ints) -> GroupImages:
    """Count ``images`` (n,) by diagnosis and group."""
    groups, n_classes = balanced_groups(site), site.config.task.n_classes
    labels = site.dataset.labels[images]
    return GroupImages.measure(labels, _of(site, groups, images), n_classes, groups.size)


def group_weights(
    site: Site, images: Ints, arrays: Mapping[str, NDArray[np.generic]]
) -> Floats | None:
    """Return what ``images`` (n,) weigh beside their diagnoses, (n,); None without groups.

    Parameters
    ----------
    arrays : by name, as they came with a question; those of the counts over all sites are
        (n_classes, n_groups). The weights are computed from them here, so that no coordinator can
        give a group another weight than counts can.
    """
    if (groups := site.config.balanced_groups) is None:
        return None
    weights = groups.weights(np.asarray(arrays[GROUP_COUNTS], dtype=np.float64))
    return np.asarray(weights[site.dataset.labels[images], _of(site, groups, images)])


def own_group_weights(site: Site, images: Ints) -> Floats | None:
    """Return what ``images`` (n,) weigh by this site's counts, (n,); None without groups."""
    if site.config.balanced_groups is None:
        return None
    own = count_groups(site, images).images
    return group_weights(site, images, {GROUP_COUNTS: own})


def _of(site: Site, groups: BalancedGroups, images: Ints) -> Ints:
    return groups.of([site.dataset.images[i] for i in images], site.config.task)
