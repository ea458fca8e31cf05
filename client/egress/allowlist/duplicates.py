"""What a site may be asked and may answer while pictures are compared across sites."""

from collections.abc import Mapping

from client.egress.questions import Form, Forms, Question, QuestionForm, Values, sequence, text
from client.egress.records import Array, Arrays
from client.site import Site
from common.config.duplicates import DuplicatesConfig
from common.config.run import RunConfig
from common.data.picture_tokens import DRAWS

_MOST_SITES = 1_000


def n_rows(config: RunConfig) -> int:
    """Return how many rows of tokens every site sends."""
    assert isinstance(config, DuplicatesConfig)  # the list of methods sees to it
    return config.most_pictures


def _rows(site: Site, _: Values) -> Forms:
    return {"rows": Form((None, n_rows(site.config)), 0, 1)}


def _tokens(site: Site, _: Question) -> tuple[int, ...]:
    return (n_rows(site.config), DRAWS)


QUESTIONS: Mapping[str, QuestionForm] = {
    "tokens": QuestionForm(),
    "shared": QuestionForm({"others": sequence(text(r"^.{1,100}$"), 1, _MOST_SITES)}, _rows),
}

SUMS: Mapping[str, Arrays] = {
    "tokens": {"tokens": Array(_tokens, "<i8"), "marks": Array((1,), "<i8")},
    "shared": {},
}
