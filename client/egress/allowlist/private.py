"""What a site may be asked and may answer while a linear classifier is trained privately."""

from collections.abc import Mapping

from client.egress.private_forms import STEP, private_forms
from client.egress.questions import Question, QuestionForm
from client.egress.records import EVALUATION, Arrays, like_weights, noisy
from client.site import Site
from common.privacy.lda import moments_size


def _weights(site: Site) -> tuple[int, ...]:
    return (site.config.task.n_classes, site.n_components + 1)


def _overview(site: Site, _: Question) -> tuple[int, ...]:
    return (site.config.task.n_classes + site.n_components,)


def _moments(site: Site, _: Question) -> tuple[int, ...]:
    return (moments_size(site.n_components, site.config.task.n_classes),)


_CENTRE = ("mean", "scale")

QUESTIONS: Mapping[str, QuestionForm] = {
    "overview": QuestionForm(STEP),
    "gradient": QuestionForm(
        STEP, private_forms(_weights, "weights", *_CENTRE, "offset", "class_weight")
    ),
    "moments": QuestionForm(STEP, private_forms(_weights, *_CENTRE)),
    "evaluate": QuestionForm({}, private_forms(_weights, "weights", "calibration", "base_rates")),
}

SUMS: Mapping[str, Arrays] = {
    "overview": noisy(_overview),
    "gradient": noisy(like_weights(2)),
    "moments": noisy(_moments),
    "evaluate": EVALUATION,
}
