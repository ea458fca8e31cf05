"""What a site may be asked and may answer while a federation is described, before any training."""

from collections.abc import Mapping

from client.egress.questions import Question, QuestionForm
from client.egress.records import Array, Arrays, Shape
from client.site import Site
from common.data.groups import COLUMNS, HISTOGRAMS, groups

QUESTIONS: Mapping[str, QuestionForm] = {"statistics": QuestionForm()}


def _histogram(name: str) -> Shape:
    """Return the shape of a histogram: images and lesions, by group, the last for small ones."""

    def shape(site: Site, _: Question) -> tuple[int, ...]:
        return (2, len(groups(name, site.config.task)) + 1)

    return shape


SUMS: Mapping[str, Arrays] = {
    "statistics": {
        **{name: Array(_histogram(name), "<i8", counts=True, groups=True) for name in HISTOGRAMS},
        "filled": Array((len(COLUMNS), 2, 3), "<i8", counts=True, groups=True),
        "columns": Array((len(COLUMNS),), "<i8"),
    },
}
