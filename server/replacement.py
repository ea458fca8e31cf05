"""Whether a run's model may replace that of its parent: both answer about the same lesions.

They are lesions that the sites of this run hold out, and held out for the parent, too. The
coordinator sees added counts alone.
"""

import math
from collections.abc import Iterator, Mapping
from functools import partial
from typing import NamedTuple, Protocol

from common.answers.basis import AnswerBasis
from common.answers.paired import (
    FIGURES,
    LEAST,
    OF_INCUMBENT,
    PAIRED,
    PAIRED_GROUPS,
    DecisionRules,
    GroupPairs,
    PairedCounts,
    changes,
    reach,
)
from common.answers.verdict import ALL, unjudged, verdict, worse
from common.arrays import Floats
from common.config.run import RunConfig, flat
from common.data.groups import MISSING, SMALL
from common.errors import ConfigError
from common.json_types import JsonObject
from common.statistics.sums import S
from common.task import Task
from server.federation.plausibility import check_group_pairs, check_pairs
from server.federation.question import Answers, Question
from server.run.parent import Parent

_SPLITS = ("seed", "folds", "test_fraction")
"""Settings that decide which lesions are held out, where a table does not say."""

_SEEN = ("size", "predictions")
"""Settings by which a network sees an image, and which a run may change."""


class Ask(Protocol):
    """Asks the sites a question about the run's model, with what names its scores."""

    def __call__(self, question: Question[S], /) -> Answers[S]:
        """Return the answers."""


class _Part(NamedTuple):
    group: str
    counts: PairedCounts
    lesions: int


def check_gate(config: RunConfig, parent: Parent | None) -> None:
    """Refuse two models that cannot be compared, before anything is trained.

    Raises
    ------
    ConfigError
        If there is no parent, or it told apart other diagnoses or held out other lesions.
    """
    if not config.gate:
        return
    if parent is None:
        raise ConfigError("'gate' is true, but there is no model to compare with; set parent=RUN")
    former = parent.model.config
    if former.task.codes != config.task.codes:
        raise ConfigError(
            f"'gate' is true, but {config.parent} tells apart {', '.join(former.task.codes)} and "
            f"this run {', '.join(config.task.codes)}: models are compared on the same diagnoses; "
            "set gate=false"
        )
    names = (*_SPLITS, *_SEEN)
    other = [n for n in names if getattr(former, n) != getattr(config, n)]
    if other:
        wanted = " ".join(f"{name}={flat(getattr(former, name))}" for name in other)
        raise ConfigError(
            f"'gate' is true, but {config.parent} held out other lesions or saw them otherwise; "
            f"set {wanted}, or gate=false"
        )


def judge(config: RunConfig, parent: Parent, basis: AnswerBasis, ask: Ask) -> JsonObject:
    """Return how both models do, and whether the new one may replace that of the parent.

    Parameters
    ----------
    basis : of the new model.
    ask : asks about the new model's scores; the sites have the parent's model already.
    """
    task = config.task
    rules = {OF_INCUMBENT: DecisionRules.of(parent.model.basis), "": DecisionRules.of(basis)}
    arrays = {n: a for prefix, each in rules.items() for n, a in each.to_record(prefix).items()}
    pairs = Question(PAIRED, PairedCounts.zero(task), arrays, check_answer=check_pairs)
    answers = ask(pairs)
    lesions = answers.total.lesions
    if absent := [code for code, n in zip(task.codes, lesions, strict=True) if not n]:
        found: JsonObject = {"lesions": int(lesions.sum()), "rows": [], "small": []}
        return _described(parent, config, found, unjudged(absent))
    parts = [_Part(ALL, answers.total, int(lesions.sum()))]
    parts += [_Part(site, own, int(own.lesions.sum())) for site, own in answers.by_site.items()]
    if config.gate_by:
        parts += _groups(config, arrays, ask)
    large = [part for part in parts if part.group == ALL or part.lesions >= config.gate_least]
    said = [name for name in FIGURES if all(each.says(name) for each in rules.values())]
    rows = list(_rows(large, task, said, config.gate_margin))
    found = {
        "lesions": int(lesions.sum()),
        "rows": rows,
        "small": [part.group for part in parts if part not in large and part.lesions],
    }
    reason = worse((row["group"], row["metric"], row["verdict"]) for row in rows)
    return _described(parent, config, found, reason)


def _described(parent: Parent, config: RunConfig, found: JsonObject, reason: str) -> JsonObject:
    settings = {"margin": config.gate_margin, "least": config.gate_least}
    return {"old": parent.digest, **settings, **found, "accepted": not reason, "reason": reason}


def _groups(config: RunConfig, arrays: Mapping[str, Floats], ask: Ask) -> list[_Part]:
    """Return the counts of each group; not of what is unknown, or was counted together."""
    groups = config.gate_groups
    check = partial(check_group_pairs, groups)
    zero = GroupPairs.zero(config.task, groups.size)
    total = ask(Question(PAIRED_GROUPS, zero, arrays, check_answer=check)).total
    return [
        _Part(f"{dimension.name} {name}", total.group(number), int(total.lesions[number]))
        for dimension, place in groups.places()
        for number, name in enumerate(groups.names(dimension), place.start)
        if name not in (MISSING, SMALL)
    ]


def _rows(parts: list[_Part], task: Task, said: list[str], margin: float) -> Iterator[JsonObject]:
    """Yield each figure of each part, with 95 % intervals that hold for all of them at once."""
    found = [(part, *each) for part in parts for each in changes(part.counts, task).items()]
    known = [name in said and change.lesions >= LEAST for _, name, change in found]
    half = reach(sum(known))
    for (part, name, change), judged in zip(found, known, strict=True):
        value = change.value if judged else math.nan
        low, high = (value + side * half * change.error for side in (-1, 1))
        yield {
            "group": part.group,
            "metric": name,
            "lesions": change.lesions,
            "old": change.old if name in said else math.nan,
            "new": change.new if name in said else math.nan,
            "change": {"value": value, "low": max(low, -1.0), "high": min(high, 1.0)},
            "verdict": verdict(value, high, margin, part.group == ALL),
        }
