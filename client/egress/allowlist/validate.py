"""What a site may be asked and may answer while a finished model is judged: counts alone."""

from collections.abc import Mapping

from client.egress.network_forms import whole_network
from client.egress.questions import (
    LARGEST,
    LARGEST_MAP,
    Form,
    Forms,
    QuestionForm,
    Values,
    rule_forms,
)
from client.egress.records import ANSWERS, EVALUATION, GROUPS, Arrays
from client.site import Site


def _linear_model(site: Site, _: Values) -> Forms:
    """Return the forms of a linear model; that its sizes fit together is the method's to check."""
    return {
        "mean": Form((site.n_features,), -LARGEST_MAP, LARGEST_MAP),
        "matrix": Form((site.n_features, None), -LARGEST_MAP, LARGEST_MAP),
        "fourier": Form((None,), 0, LARGEST_MAP),
        "unit": Form((), 0, 1),
        "clip": Form((), 0, LARGEST),
        "weights": Form((site.config.task.n_classes, None)),
    }


def _rule(site: Site, _: Values) -> Forms:
    return rule_forms(site)


QUESTIONS: Mapping[str, QuestionForm] = {
    "linear": QuestionForm({}, _linear_model),
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
