"""What a site may be asked and may answer while an SVM is trained."""

from collections.abc import Callable, Mapping

from client.egress.linear_forms import linear_model
from client.egress.paired_forms import gated, grouped_forms, paired_forms
from client.egress.questions import (
    APPEARANCE_QUESTIONS,
    DIGEST,
    GROUP_QUESTIONS,
    LARGEST,
    LARGEST_MAP,
    ROUND,
    Form,
    Forms,
    Question,
    QuestionForm,
    Values,
    group_forms,
    rule_forms,
)
from client.egress.records import (
    ANSWERS,
    APPEARANCE,
    CALIBRATION,
    EVALUATION,
    GROUP_IMAGES,
    GROUP_PAIRS,
    PAIRS,
    SCREENING,
    Array,
    Arrays,
    Shape,
    by_class,
    like_weights,
)
from client.site import Site
from common.answers.paired import INCUMBENT, PAIRED, PAIRED_GROUPS
from common.data.balance import GROUP_COUNTS


def _feature_map(site: Site, _: Values) -> Forms:
    config, rbf = site.config, site.config.kernel == "rbf"
    return {
        "mean": Form((site.n_features,), -LARGEST_MAP, LARGEST_MAP),
        "matrix": Form((site.n_features, site.n_components), -LARGEST_MAP, LARGEST_MAP),
        "fourier": Form((3,) if rbf else (0,), 0, LARGEST_MAP),
        "unit": Form((), 0, 0),
        "clip": Form((), 0, LARGEST if config.clip_features else 0),
        "powers": Form((site.n_features,), config.power, 1),
        "class_weights": Form((config.task.n_classes,), 0),
        **group_forms(site),
    }


def _fits(site: Site, _: Values) -> Forms:
    return {"weights": Form((None, site.config.task.n_classes, None))}


def _scored(site: Site, values: Values) -> Forms:
    return {**_fits(site, values), **rule_forms(site)}


def _with_weights(rules: Callable[[Site, Values], Forms]) -> Callable[[Site, Values], Forms]:
    def forms(site: Site, values: Values) -> Forms:
        one_fit = Form((1, site.config.task.n_classes, None))
        return {"weights": one_fit, **rules(site, values)}

    return forms


def _features(site: Site, _: Question) -> int:
    return site.n_features


def _outputs(site: Site, _: Question) -> int:
    return site.config.fourier if site.config.kernel == "rbf" else site.n_components


def _sized(size: Callable[[Site, Question], int], shape: Callable[[int], tuple[int, ...]]) -> Shape:
    return lambda site, question: shape(size(site, question))


def _class_sum(size: Callable[[Site, Question], int]) -> Shape:
    return lambda site, question: (site.config.task.n_classes, size(site, question))


def _moments(size: Callable[[Site, Question], int]) -> Arrays:
    return {
        "class_weight": Array(by_class(lambda k: (k,)), counts=True),
        "class_sum": Array(_class_sum(size)),
        "gram": Array(_sized(size, lambda n: (n * (n + 1) // 2,))),
    }


_MAPPED = {"map": DIGEST}

QUESTIONS: Mapping[str, QuestionForm] = {
    "moments": QuestionForm(),
    **GROUP_QUESTIONS,
    **APPEARANCE_QUESTIONS,
    "prepare": QuestionForm(_MAPPED, _feature_map),
    "mapped_moments": QuestionForm(_MAPPED),
    ROUND: QuestionForm(_MAPPED, _fits),
    "calibrate": QuestionForm(_MAPPED, _scored),
    "evaluate": QuestionForm(_MAPPED, _scored),
    "answers": QuestionForm(_MAPPED, _scored),
    "screening": QuestionForm(_MAPPED, _scored),
    INCUMBENT: QuestionForm({}, gated(linear_model)),
    PAIRED: QuestionForm(_MAPPED, gated(_with_weights(paired_forms))),
    PAIRED_GROUPS: QuestionForm(_MAPPED, gated(_with_weights(grouped_forms))),
}

SUMS: Mapping[str, Arrays] = {
    "moments": _moments(_features),
    GROUP_COUNTS: GROUP_IMAGES,
    **APPEARANCE,
    "prepare": {},
    "mapped_moments": _moments(_outputs),
    ROUND: {"loss": Array(like_weights(2)), "gradient": Array(like_weights(3))},
    "calibrate": CALIBRATION,
    "evaluate": EVALUATION,
    "answers": ANSWERS,
    "screening": SCREENING,
    INCUMBENT: {},
    PAIRED: PAIRS,
    PAIRED_GROUPS: GROUP_PAIRS,
}
