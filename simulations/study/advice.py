"""Advice from a study's figures, by rules that stand beside each answer."""

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import fmean

from common.methods import METHODS
from simulations.study.definition import NATURAL
from simulations.study.findings import Findings
from simulations.study.judging.paired_tests import Comparison, points
from simulations.study.names import sentence
from simulations.study.points import SIGNED, amount, in_points, span
from simulations.study.ranking import best, best_private, federated, without_privacy
from simulations.study.results import ArmResult

_PRIVACY = "What if lesions must be hidden by differential privacy?"


@dataclass(frozen=True)
class Advice:
    """An answer to a question, and the rule by which the figures gave it."""

    question: str
    answer: str
    rule: str


def advise(findings: Findings) -> list[Advice]:
    """Return all that the figures answer."""
    questions = (
        _quality,
        _data_scale,
        _compute,
        _realtime,
        _interpretability,
        _federation,
        _alone,
        _privacy,
    )
    answers = (answer for question in questions for answer in question(findings))
    return list(answers)


def _quality(findings: Findings) -> Iterator[Advice]:
    ranked = _ranked(findings)
    if not ranked:
        return
    first, *others = ranked
    texts = [f"Of the arms on pooled data {_shown(findings, first)} is the highest."]
    for other in others:
        if (gap := findings.comparison(other, first)) is not None:
            name = findings.names.routes[other.arm.route]
            texts.append(f"{sentence(name)} {_against(findings, gap, other)}.")
    top = best(findings.full)
    if top is not None and top.balanced.mean > first.balanced.mean and not top.identical(first):
        texts.append(f"The highest of all arms is {_shown(findings, top)}.")
    yield Advice(
        "Which route diagnoses best?",
        " ".join(texts),
        "Mean balanced accuracy in points; better or worse is said where the paired test, "
        "corrected by Holm, is below 5 %, equal where the difference is within "
        f"{_points(findings)} at 5 %.",
    )


def _data_scale(findings: Findings) -> Iterator[Advice]:
    """Say whether the SVM wins on little data and fine-tuning on much."""
    svm, tuned = (_first(findings, trains_network) for trains_network in (False, True))
    if svm is None or tuned is None:
        return
    names, leads = findings.names.routes, _leads(findings, tuned, svm)
    if len(leads) < 2:
        return
    shares = [
        f"{scale:.0%}: {in_points(lead, SIGNED)} points{'' if shown else ' (not shown)'}"
        for scale, (lead, shown) in leads.items()
    ]
    (least, *_), (little, *_, much) = leads.keys(), leads.values()
    holds = {
        (True, True): "The claim holds here.",
        (True, False): f"Half of the claim holds here: the SVM wins at {least:.0%}, but "
        "fine-tuning is not shown to win on all.",
        (False, True): "Half of the claim holds here: fine-tuning wins on all, but the SVM is not "
        f"shown to win at {least:.0%}.",
        (False, False): "The claim is not borne out here.",
    }[little[0] < 0 and little[1], much[0] > 0 and much[1]]
    yield Advice(
        "Does the SVM win on little data and fine-tuning on much?",
        f"{holds} {sentence(names[tuned])} minus {names[svm]} in balanced accuracy, by share of "
        f"the training lesions: {'; '.join(shares)}.",
        "The study's first SVM and its first fine-tuning on pooled data of each size; a side wins "
        "where the paired test, corrected by Holm, is below 5 %.",
    )


def _leads(findings: Findings, route: str, over: str) -> dict[float, tuple[float, bool]]:
    """Return a route's lead over another on pooled data of each size, and whether it is shown."""
    leads = {}
    for scale in findings.study.scales:
        arms = {r.arm.route: r for r in findings.pooled if r.arm.scale == scale}
        if route in arms and over in arms:
            gap = findings.comparison(arms[route], arms[over])
            if gap is not None:
                leads[scale] = gap.seen_from(arms[route].arm.name)[0], gap.different
    return leads


def _compute(findings: Findings) -> Iterator[Advice]:
    ranked = [r for r in _ranked(findings) if _seconds(r, findings) is not None]
    if len(ranked) < 2:
        return
    names = findings.names.routes
    cheapest = min(ranked, key=lambda r: _seconds(r, findings) or 0.0)
    first = ranked[0]
    cost, most = (_seconds(r, findings) or 0.0 for r in (cheapest, first))
    answer = (
        f"{sentence(names[cheapest.arm.route])} needs least: {amount(cost / 60)} minutes of "
        "computing a model"
    )
    if cheapest is first:
        answer += ", and it is also the best."
    else:
        lost = in_points(first.balanced.mean - cheapest.balanced.mean)
        answer += (
            f", {most / cost:.1f} times less than {names[first.arm.route]}, at {lost} points of "
            "balanced accuracy less."
        )
    yield Advice(
        "What if computing is scarce?",
        answer,
        "Least time for features of the training images and for training, on pooled data.",
    )


def _realtime(findings: Findings) -> Iterator[Advice]:
    limit = findings.study.realtime
    known = [r for r in _ranked(findings) if r.arm.route in findings.costs]
    if not known:
        return
    latency = {r.arm.route: findings.costs[r.arm.route].latency[1] for r in known}
    fast = [r for r in known if latency[r.arm.route] <= limit]
    names = findings.names.routes
    times = ", ".join(f"{names[route]} {value * 1000:.0f} ms" for route, value in latency.items())
    if fast:
        first = sentence(names[fast[0].arm.route])
        answer = f"{first}, the best of those that are fast enough ({times})."
    else:
        answer = f"None is fast enough on this machine ({times})."
    yield Advice(
        "What if an answer is needed in real time?",
        answer,
        f"Best balanced accuracy among routes that answer one image within {limit * 1000:g} ms.",
    )


def _interpretability(findings: Findings) -> Iterator[Advice]:
    ranked = _ranked(findings)
    if len(ranked) < 2:
        return
    first = ranked[0]
    simple = min(ranked, key=lambda r: (_complexity(findings, r), -r.balanced.mean))
    route = sentence(findings.names.routes[simple.arm.route])
    if simple is first:
        answer = f"{route}: it is the simplest and the best."
    else:
        gap = findings.comparison(simple, first)
        low = None if gap is None else gap.seen_from(simple.arm.name)[1][0]
        worst = "" if low is None else f" ({in_points(low, SIGNED)} at worst)"
        if low is not None and low > -findings.study.margin:
            answer = f"{route}: it loses less than {_points(findings)}{worst}."
        else:
            lost = in_points(first.balanced.mean - simple.balanced.mean)
            answer = (
                f"{route} is the simplest, {lost} points below "
                f"{findings.names.routes[first.arm.route]}{worst}: it may cost more than "
                f"{_points(findings)}."
            )
    yield Advice(
        "What if a diagnosis must be explained?",
        answer,
        "The simplest route (a linear classifier on fixed features before one with a kernel, that "
        "before a network) if the 95 % interval of what it loses to the best is within the margin.",
    )


def _federation(findings: Findings) -> Iterator[Advice]:
    for route, name in findings.names.routes.items():
        gaps = [(r, findings.against_pooled(r)) for r in federated(findings, route)]
        texts = [
            f"over {findings.names.way(r.arm)} it {_against(findings, gap, r)}"
            for r, gap in gaps
            if gap is not None
        ]
        if texts:
            yield Advice(
                f"What does federation cost {name}?",
                f"Against pooled data, {'; '.join(texts)}.",
                "Equal if the 90 % interval of the paired difference lies within the margin "
                "(two one-sided tests), better or worse if the paired test is below 5 %; both "
                "corrected by Holm.",
            )


def _alone(findings: Findings) -> Iterator[Advice]:
    for route, name in findings.names.routes.items():
        arms = [r for r in findings.full if r.arm.route == route]
        own = [r for r in arms if r.arm.site]
        together = [r for r in arms if findings.scheme(r) == NATURAL]
        top = best(own)
        if top is not None and together:
            reached = together[0].balanced.mean
            gain = in_points(reached - top.balanced.mean, SIGNED)
            mean = in_points(reached - fmean(r.balanced.mean for r in own), SIGNED)
            yield Advice(
                f"What does a site gain by taking part ({name})?",
                f"{gain} points of balanced accuracy over the best site alone ({top.arm.site}), "
                f"{mean} over the mean of the {len(own)} sites.",
                "Federated natural sites minus sites alone, on all test lesions.",
            )


def _privacy(findings: Findings) -> Iterator[Advice]:
    question, private = _PRIVACY, best_private(findings)
    rule = "Best balanced accuracy among the arms with an epsilon."
    if private is None:
        yield Advice(question, "No arm of this study promises differential privacy.", rule)
        return
    config = findings.study.config(private.arm.route)
    answer = f"{sentence(_shown(findings, private))} at delta {config.delta:g}"
    top = best(r for r in findings.full if not findings.private(r))
    others = {r.arm: r for r in (without_privacy(findings, private), top) if r is not None}
    gaps = (
        f"{in_points(private.balanced.mean - r.balanced.mean, SIGNED)} points against "
        f"{findings.names.arm(r.arm)}"
        for r in others.values()
    )
    yield Advice(question, f"{'; '.join((answer, *gaps))}.", rule)


def _seconds(result: ArmResult, findings: Findings) -> float | None:
    cost = findings.cost(result)
    return None if cost is None else cost.computing


def _first(findings: Findings, trains_network: bool) -> str | None:
    """Return the first route without noise that trains the network, or starts from features.

    One chosen by its figures would have an advantage.
    """
    for route in findings.study.routes:
        method = METHODS[findings.study.config(route).method]
        if not method.private and method.trains_network == trains_network:
            return route
    return None


def _ranked(findings: Findings) -> list[ArmResult]:
    """Return the routes on all pooled data, the best first."""
    whole = [r for r in findings.pooled if r.arm.scale == 1]
    return sorted(whole, key=lambda r: r.balanced.mean, reverse=True)


def _complexity(findings: Findings, result: ArmResult) -> int:
    config = findings.study.config(result.arm.route)
    return METHODS[config.method].effort + (config.kernel == "rbf")


def _against(findings: Findings, gap: Comparison, result: ArmResult) -> str:
    """Say how an arm of a comparison stands against the other one."""
    if findings.identical(gap):
        return "is identical"
    lead, interval = gap.seen_from(result.arm.name)
    value = (
        f"{in_points(lead, SIGNED)} points (95 % interval {span(interval, SIGNED)}, "
        f"corrected p {gap.p_adjusted:.3f})"
    )
    if gap.equivalent:
        return f"is equal within the margin: {value}"
    if gap.different:
        return f"is {'better' if lead > 0 else 'worse'}: {value}"
    return f"is neither shown to be equal nor different: {value}"


def _shown(findings: Findings, result: ArmResult) -> str:
    value = result.balanced
    bounds = span((value.low, value.high))
    return f"{findings.names.arm(result.arm)} ({in_points(value.mean)}, {bounds})"


def _points(findings: Findings) -> str:
    return points(findings.study.margin)
