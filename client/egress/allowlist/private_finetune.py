"""What a site may be asked and may answer while a network's last layers are trained privately."""

from collections.abc import Mapping

from client.egress.private_forms import STEP, private_forms
from client.egress.questions import QuestionForm
from client.egress.records import EVALUATION, Arrays, by_class, like_weights, noisy
from client.site import Site


def _weights(site: Site) -> tuple[int, ...]:
    from common.privacy.network import run_part  # imports PyTorch

    return run_part(site.config).pretrained.shape


QUESTIONS: Mapping[str, QuestionForm] = {
    "overview": QuestionForm(STEP),
    "gradient": QuestionForm(STEP, private_forms(_weights, "weights", "offset", "class_weight")),
    "evaluate": QuestionForm({}, private_forms(_weights, "weights", "calibration", "base_rates")),
}

SUMS: Mapping[str, Arrays] = {
    "overview": noisy(by_class(lambda k: (k,))),
    "gradient": noisy(like_weights(1)),
    "evaluate": EVALUATION,
}
