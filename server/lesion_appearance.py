"""How lesions look, learned from sums over the sites: what is unlike them is for a person."""

import math
from dataclasses import replace

from common.answers.appearance import SIZE, Appearance, DistanceCounts
from common.statistics.moments import Moments
from server.federation.federation import Federation
from server.federation.question import LossPolicy, Question


def learn_appearance(federation: Federation, loss: LossPolicy) -> Appearance | None:
    """Return how training lesions look, with a threshold from validation lesions.

    None if there is no training lesion.

    Raises
    ------
    QuorumError
        If too few sites are left.
    """
    moments = federation.total(Question("appearance", Moments.zero(1, SIZE)), loss)
    if not moments.weight > 0:
        return None
    found = Appearance.fit(moments)
    question = Question("distances", DistanceCounts.zero(), found.to_record())
    threshold = federation.total(question, loss).threshold()
    return replace(found, threshold=math.inf if threshold is None else threshold)
