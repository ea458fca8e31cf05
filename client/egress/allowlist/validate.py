"""What a site may be asked and may answer while a finished model is judged: counts alone."""

from collections.abc import Mapping

from client.egress.linear_forms import linear_model
from client.egress.network_forms import whole_network
from client.egress.questions import Forms, QuestionForm, Values, rule_forms
from client.egress.records import ANSWERS, EVALUATION, GROUPS, Arrays
from client.site import Site


def _rule(site: Site, _: Values) -> Forms:
    return rule_forms(site)


QUESTIONS: Mapping[str, QuestionForm] = {
    "linear": QuestionForm({}, linear_model),
    "network": QuestionForm({}, whole_network, optional=True),
    "evaluate": QuestionForm({}, _rule),
    "answers": QuestionForm({}, _rule),
    "groups": QuestionForm({}, _rule),
}

SUMS: Mapping[str, Arrays] = {
    "linear": {},
    "network": {},
    "evaluate": EVALUATION,
    "answers": ANSWERS,
    "groups": GROUPS,
}
