"""Which of a run's diagnoses a site has, and which others, as far as that may be said."""

import numpy as np

from client.site import Site
from common.methods import METHODS
from common.task import KNOWN
from common.wire.messages import Value


def known_diagnoses(site: Site) -> dict[str, Value]:
    """Say of each of the run's diagnoses, and of each known one beside them, if a site has it.

    Flags, so that no word of a table leaves, and the answers of all sites have the same length. A
    diagnosis with fewer images than the operator's least count is not said to be there. Where a
    site's counts are hidden, by noise or in secure sums, it says that it knows all of the run's,
    and of no others.
    """
    task, dataset = site.config.task, site.dataset
    if METHODS[site.config.method].private or site.config.secure:
        return {"classes": [True] * task.n_classes, "others": [False] * len(KNOWN)}
    least = max(1, site.rules.least_count)
    counts = np.bincount(dataset.labels, minlength=task.n_classes)
    others = [dataset.left_out.get(code, 0) >= least for code in KNOWN]
    return {"classes": (counts >= least).tolist(), "others": others}
