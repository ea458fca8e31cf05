"""Statistics of a federation's data before any training: one question, whose answers add."""

from common.config.run import RunConfig
from common.data.groups import COLUMNS, HISTOGRAMS
from common.errors import ReplyError
from common.statistics.data_counts import IMAGES, LESIONS, DataCounts
from server.federation.federation import Federation
from server.federation.question import LossPolicy, Question
from server.survey.documents import Described
from server.survey.survey import Survey


def check(config: RunConfig) -> None:
    """Refuse nothing: there is no network whose settings might not fit."""


def survey(federation: Federation, config: RunConfig) -> Described:
    """Ask the sites what they have; one that does not answer is left out.

    Raises
    ------
    QuorumError
        If too few sites are left.
    """
    question = Question("statistics", DataCounts.zero(config.task), check_answer=_refuse_impossible)
    joined = dict(federation.sites)
    counts = federation.answers(question, LossPolicy.CONTINUE)
    return Survey(config.task, config.secure, joined, dict(federation.faults), counts)


def _refuse_impossible(counts: DataCounts, images: int) -> None:
    """Refuse counts of more images than a site has, or of lesions without images."""
    arrays = {name: getattr(counts, name) for name in HISTOGRAMS}
    arrays |= {f"filled, {name}": counts.filled[k] for k, name in enumerate(COLUMNS)}
    for name, array in arrays.items():
        if array[IMAGES].sum() > images or (array[LESIONS] > array[IMAGES]).any():
            raise ReplyError(f"array '{name}' cannot be counted on {images} images")
    if (counts.columns > 1).any():
        raise ReplyError("array 'columns' says of a single site that it is several")
