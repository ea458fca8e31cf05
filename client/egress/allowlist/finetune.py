"""What a site may be asked and may answer while a network is fine-tuned."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Literal

from client.egress.network_forms import tensor, whole_network
from client.egress.paired_forms import gated, grouped_forms, paired_forms
from client.egress.questions import (
    APPEARANCE_QUESTIONS,
    DIGEST,
    FLAG,
    GROUP_QUESTIONS,
    NUMBER,
    RUN,
    Form,
    Forms,
    Question,
    QuestionForm,
    Values,
    group_forms,
    rule_forms,
    sequence,
    whole,
)
from client.egress.records import (
    ANSWERS,
    APPEARANCE,
    CALIBRATION,
    COUNTS,
    EVALUATION,
    GROUP_IMAGES,
    GROUP_PAIRS,
    PAIRS,
    SCREENING,
    TENSORS,
    Array,
    Arrays,
    Declared,
)
from client.site import Site
from common.answers.paired import INCUMBENT, PAIRED, PAIRED_GROUPS
from common.config.finetune import FAIRLY, FORMER
from common.config.robust import CROSSCHECK
from common.data.balance import GROUP_COUNTS
from common.errors import Reason, RefusalError
from common.features.augment import PREDICTION_VIEWS

if TYPE_CHECKING:
    from common.finetune.plan import Round

LARGEST_HALF = 65504.0
"""Largest number of 16 bits: no array with an infinite one is taken."""

_MOST_CLASSES = 10_000
_ROUND = {
    "round": NUMBER,
    "run": RUN,
    "counts": sequence(whole(0, 10**7), 2, _MOST_CLASSES),
    "images": whole(0, 10**9),
}


def _trained(site: Site, values: Values) -> Forms:
    """Return the forms of what a round of fine-tuning starts from."""
    from common.finetune.half_precision import dtype_of
    from common.finetune.plan import NONNEGATIVE

    this, n_classes, counts = _round(site, values), site.config.task.n_classes, values["counts"]
    if not isinstance(counts, list) or len(counts) != n_classes:
        raise RefusalError(Reason.FORM, f"'counts' are not of the {n_classes} classes of this run")
    tensors = {
        name: Form(
            shape,
            0 if name.startswith(NONNEGATIVE) else -LARGEST_HALF,
            LARGEST_HALF,
            dtype_of(name),
        )
        for name, shape in _shapes(site, this.stage, this.begins).items()
    }
    return {**tensors, **group_forms(site)}


def _moved(site: Site, question: Question) -> Arrays:
    """Return the tensors of a round's stage, with moments where these are averaged after it."""
    from common.finetune.half_precision import dtype_of, wide_sums

    this = _round(site, question.values)
    moved = _shapes(site, this.stage, this.ends)
    wide = wide_sums(site.config)
    return {name: Array(shape, dtype_of(name, wide)) for name, shape in moved.items()}


def _round(site: Site, values: Values) -> "Round":
    """Return the round that a question names."""
    from common.finetune.plan import plan

    rounds, number = plan(site.config), int(str(values["round"]))
    if number >= len(rounds):
        raise RefusalError(Reason.FORM, f"there is no round {number}; this run has {len(rounds)}")
    return rounds[number]


def _shapes(site: Site, stage: str, moments: bool) -> Mapping[str, tuple[int, ...]]:
    """Return the shapes of a stage's tensors by name, with those of the moments or without."""
    from common.finetune.plan import shapes
    from common.networks.network import open_stage, run_network

    return shapes(open_stage(run_network(site.config), stage), site.config, moments)


def _candidates(site: Site, values: Values) -> Forms:
    """Return the forms of a round's weights as each site would have them, one after the other."""
    if site.config.robust != CROSSCHECK:
        raise RefusalError(Reason.FORM, f"this run's rule is {site.config.robust}")
    candidates = int(str(values["candidates"]))
    shapes = _shapes(site, _round(site, values).stage, moments=False)
    return {name: tensor((candidates, *shape)) for name, shape in shapes.items()}


def _fairly_trained(site: Site, values: Values) -> Forms:
    if site.config.strategy != "qfedavg":
        raise RefusalError(Reason.FORM, f"this run's strategy is {site.config.strategy}")
    return _trained(site, values)


def _former_network(site: Site, values: Values) -> Forms:
    known, n_classes = values["known"], site.config.task.n_classes
    if not isinstance(known, list) or len(known) != n_classes:
        raise RefusalError(Reason.FORM, f"'known' is not of the {n_classes} classes of this run")
    return whole_network(site, values)


def _scored_network(site: Site, values: Values) -> Forms:
    return {**whole_network(site, values), **rule_forms(site)}


def _with_network(rules: Callable[[Site, Values], Forms]) -> Callable[[Site, Values], Forms]:
    return lambda site, values: {**whole_network(site, values), **rules(site, values)}


_SCORES = {
    "scores": DIGEST,
    "subset": Literal["validation", "test"],
    "views": whole(1, PREDICTION_VIEWS),
    "personal": FLAG,
}
_TEST_SCORES = {**_SCORES, "subset": Literal["test"]}

QUESTIONS: Mapping[str, QuestionForm] = {
    "counts": QuestionForm(),
    **GROUP_QUESTIONS,
    **APPEARANCE_QUESTIONS,
    "train": QuestionForm(_ROUND, _trained),
    FAIRLY: QuestionForm(_ROUND, _fairly_trained),
    CROSSCHECK: QuestionForm({"round": NUMBER, "candidates": whole(1, 10_000)}, _candidates),
    FORMER: QuestionForm(
        {"known": sequence(FLAG, 2, _MOST_CLASSES)}, _former_network, optional=True
    ),
    "calibrate": QuestionForm(_SCORES, _scored_network, optional=True),
    "evaluate": QuestionForm(_SCORES, _scored_network, optional=True),
    "answers": QuestionForm(_SCORES, _scored_network, optional=True),
    "screening": QuestionForm(_SCORES, _scored_network, optional=True),
    INCUMBENT: QuestionForm({}, gated(whole_network), optional=True),
    PAIRED: QuestionForm(_TEST_SCORES, gated(_with_network(paired_forms)), optional=True),
    PAIRED_GROUPS: QuestionForm(_TEST_SCORES, gated(_with_network(grouped_forms)), optional=True),
}


def _pairs(site: Site, question: Question) -> tuple[int, ...]:
    n_classes = site.config.task.n_classes
    return int(str(question.values["candidates"])), n_classes, n_classes


_CHANGE: Declared = {
    "weight": Array((), counts=True),
    "loss": Array(()),
    TENSORS: _moved,
}
SUMS: Mapping[str, Declared] = {
    "counts": COUNTS,
    GROUP_COUNTS: GROUP_IMAGES,
    **APPEARANCE,
    "train": _CHANGE,
    CROSSCHECK: {"right": Array(_pairs, "<i8", counts=True)},
    FORMER: {},
    FAIRLY: {**_CHANGE, "pull": Array(()), "damping": Array(())},
    "calibrate": CALIBRATION,
    "evaluate": EVALUATION,
    "answers": ANSWERS,
    "screening": SCREENING,
    INCUMBENT: {},
    PAIRED: PAIRS,
    PAIRED_GROUPS: GROUP_PAIRS,
}
