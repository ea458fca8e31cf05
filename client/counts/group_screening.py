"""What a site's lesions add to screening thresholds of groups of patients."""

from client.site import Site
from common.answers.group_counts import ScreeningCounts
from common.arrays import Floats, Ints
from common.errors import Reason, RefusalError


def screening_by_group(site: Site, images: Ints, probabilities: Floats) -> ScreeningCounts:
    """Count lesions by the run's groups of patients; small groups are counted together.

    Parameters
    ----------
    images : (n,) numbers of images.
    probabilities : (n, n_classes) of these, in [0, 1]; rows sum to 1. Of a lesion's images one
        counts, drawn by chance.

    Raises
    ------
    RefusalError
        If the run has one threshold for all.
    """
    chosen, task = site.config.patient_groups, site.config.task
    if chosen is None:
        raise RefusalError(
            Reason.ORDER, "this run has no thresholds by group; its setting 'screening_by' is empty"
        )
    own = site.one_a_lesion[images]
    kept, groups = images[own], chosen.counted
    rows = [site.dataset.images[i] for i in kept]
    places = groups.of(rows, site.dataset.by_lesion.index[kept], task, site.least_group)[0]
    labels = site.dataset.labels[kept]
    return ScreeningCounts.measure(task, places, groups.size, labels, probabilities[own])
