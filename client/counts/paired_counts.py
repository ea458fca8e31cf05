"""A site's lesions by whether the model in use and a new one are right about them."""

from pathlib import Path

import numpy as np

from client.egress.questions import Question
from client.site import Site
from client.state import kept_array
from common.answers.paired import (
    OF_INCUMBENT,
    PAIRED_GROUPS,
    DecisionRules,
    GroupPairs,
    PairedCounts,
)
from common.arrays import Floats, Ints
from common.statistics.sums import Nothing
from common.storage.verified import write_array


def keep_incumbent(site: Site, question: Question, scores: Floats) -> Nothing:
    """Keep scores (n, n_classes) of the n held-out images by the model in use."""
    write_array(_file(site, question), scores)
    return Nothing()


def count_pairs(
    site: Site, question: Question, images: Ints, scores: Floats
) -> PairedCounts | GroupPairs:
    """Count the held-out lesions, one image each, over all of them or by the run's groups.

    Parameters
    ----------
    images : (n,) numbers of the held-out images.
    scores : (n, n_classes) of these by the new model.

    Raises
    ------
    RefusalError
        If the model in use did not come before.
    """
    missing = "the model in use was not sent in this run; send it first"
    before = np.asarray(kept_array(_file(site, question), missing), dtype=np.float64)
    task, chosen = site.config.task, site.one_a_lesion[images]
    kept, labels = images[chosen], site.dataset.labels[images[chosen]]
    arrays = {n: np.asarray(a, dtype=np.float64) for n, a in question.arrays.items()}
    old, new = (
        DecisionRules.from_record(arrays, prefix).judge(values[chosen], labels, task)
        for prefix, values in ((OF_INCUMBENT, before), ("", scores))
    )
    if question.name != PAIRED_GROUPS:
        return PairedCounts.measure(task, labels, old, new)
    groups, rows = site.config.gate_groups, [site.dataset.images[i] for i in kept]
    lesions = site.dataset.by_lesion.index[kept]
    places = groups.of(rows, lesions, task, site.least_group)
    return GroupPairs.measure(task, places, groups.size, labels, old, new)


def _file(site: Site, question: Question) -> Path:
    return site.state.scratch(question.run) / "incumbent.npy"
