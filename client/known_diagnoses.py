"""Which of a run's diagnoses a site has, and which others, as far as that may be said."""

import numpy as np

from client.site import Site
from common.methods import METHODS
from common.task import KNOWN
from common.wire.messages import Value


def known_diagnoses(site: Site) -> dict[str, Value]:
    """Return the run's diagnoses that a site has, and the known ones that it has beside them.

    A diagnosis with fewer images than the operator's least count is not said to be there. Where a
    site's counts are hidden, by noise or in secure sums, it says that it knows all of the run's,
    and of no others. A diagnosis in a table's own words never leaves.
    """
    task, dataset = site.config.task, site.dataset
    if METHODS[site.config.method].private or site.config.secure:
        return {"classes": list(task.codes), "others": []}
    least = max(1, site.rules.least_count)
    counts = np.bincount(dataset.labels, minlength=task.n_classes)
    has = [code for code, count in zip(task.codes, counts, strict=True) if count >= least]
    others = [code for code in KNOWN if dataset.left_out.get(code, 0) >= least]
    return {"classes": has, "others": others}
