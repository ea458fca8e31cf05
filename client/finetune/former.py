"""What the parent's model says of a site's training images, kept for the rounds of a run."""

from pathlib import Path

import numpy as np

from client.counts.network_scores import scores
from client.egress.questions import Question
from client.finetune.moments import Tensors
from client.site import Site
from client.state import kept_array
from common.arrays import Floats32
from common.finetune.former import softened
from common.statistics.sums import Nothing
from common.storage.verified import write_array


def keep_former(site: Site, tensors: Tensors, question: Question) -> Nothing:
    """Keep what the parent's model says of each training image, seen as in prediction.

    Parameters
    ----------
    tensors : of the parent's network, by name, of its shapes.
    """
    known = np.array(question.values["known"], dtype=np.bool_)
    said = scores(site, tensors, site.part("train"), views=1)
    write_array(_former_file(site, question), softened(said, known))
    return Nothing()


def former_answers(site: Site, question: Question) -> Floats32 | None:
    """Return what was kept of the parent's model, (n, n_classes); None where none is held on to."""
    if not site.config.distillation:
        return None
    missing = "what the parent's model says was not asked in this run; send its weights first"
    return np.asarray(kept_array(_former_file(site, question), missing))


def _former_file(site: Site, question: Question) -> Path:
    return site.state.scratch(question.run) / "former.npy"
