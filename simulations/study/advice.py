"""Advice from a study's figures, by rules that stand beside each answer."""

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import fmean

from common.formats import between
from common.methods import METHODS
from simulations.study.definition import ALONE, NATURAL, POOLED
from simulations.study.findings import FEDERATION, ROUTES, Findings
from simulations.study.paired_tests import Comparison, points
from simulations.study.results import ArmResult


@dataclass(frozen=True)
class Advice:
    """An answer to a question, and the rule by which the figures gave it."""

    question: str
    answer: str
    rule: str


def advise(findings: Findings) -> list[Advice]:
    """Return all that the figures answer."""
    questions = (_quality, _data_scale, _compute, _realtime, _interpretability, _federation, _alone)
    answers = (answer for question in questions for answer in question(findings))
    return [*answers, *_privacy(findings)]


def _quality(findings: Findings) -> Iterator[Advice]:
    ranked = _ranked(findings)
    if not ranked:
        return
    best, *others = ranked
    texts = [f"{_shown(best)} is the highest."]
    for other in others:
        if (gap := _between(findings, other, best)) is not None:
            texts.append(f"{other.arm.name} {_against(gap, other.arm.name)}.")
    yield Advice(
        "Which route diagnoses best on all data?",
        " ".join(texts),
        f"Highest mean balanced accuracy on pooled data; better or worse is said where the paired "
        f"test, corrected by Holm, is below 5 %, equal where the difference is within "
        f"{_points(findings)} at 5 %.",
    )


def _data_scale(findings: Findings) -> Iterator[Advice]:
    """Say whether the SVM wins on little data and fine-tuning on much."""
    svm, tuned = (_first(findings, trains_network) for trains_network in (False, True))
    leads = _leads(findings, tuned, svm)
    if len(leads) < 2:
        return
    shares = [
        f"{scale:.0%}: {lead * 100:+.1f} points{'' if shown else ' (not shown)'}"
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
        f"{holds} {tuned} minus {svm} in balanced accuracy, by share of the training "
        f"lesions: {'; '.join(shares)}.",
        "The study's first SVM and its first fine-tuning on pooled data of each size; a side wins "
        "where the paired test, corrected by Holm, is below 5 %.",
    )


def _leads(
    findings: Findings, route: str | None, over: str | None
) -> dict[float, tuple[float, bool]]:
    """Return a route's lead over another on pooled data of each size, and whether it is shown."""
    leads = {}
    for scale in findings.study.scales:
        arms = {r.arm.route: r for r in findings.pooled if r.arm.scale == scale}
        if route in arms and over in arms:
            gap = _between(findings, arms[route], arms[over])
            if gap is not None:
                leads[scale] = gap.seen_from(arms[route].arm.name)[0], gap.different
    return leads


def _compute(findings: Findings) -> Iterator[Advice]:
    ranked = [r for r in _ranked(findings) if _seconds(r, findings) is not None]
    if len(ranked) < 2:
        return
    cheapest = min(ranked, key=lambda r: _seconds(r, findings) or 0.0)
    best = ranked[0]
    cost, most = (_seconds(r, findings) or 0.0 for r in (cheapest, best))
    answer = f"{cheapest.arm.route} needs least: {cost:.0f} s of computing a model"
    if cheapest is best:
        answer += ", and it is also the best."
    else:
        lost = (_balanced(best) - _balanced(cheapest)) * 100
        answer += (
            f", {most / cost:.1f} times less than {best.arm.route}, at {lost:.1f} points of "
            "balanced accuracy less."
        )
    yield Advice(
        "What if computing is scarce?",
        answer,
        "Least seconds for features of the training images and for training, on pooled data.",
    )


def _realtime(findings: Findings) -> Iterator[Advice]:
    limit = findings.study.realtime
    known = [r for r in _ranked(findings) if r.arm.route in findings.costs]
    if not known:
        return
    latency = {r.arm.route: findings.costs[r.arm.route].latency[1] for r in known}
    fast = [r for r in known if latency[r.arm.route] <= limit]
    times = ", ".join(f"{route} {value * 1000:.0f} ms" for route, value in latency.items())
    if fast:
        answer = f"{fast[0].arm.route}, the best of those that are fast enough ({times})."
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
    best = ranked[0]
    simple = min(ranked, key=lambda r: (_complexity(findings, r), -_balanced(r)))
    route = simple.arm.route
    if simple is best:
        answer = f"{route}: it is the simplest and the best."
    else:
        gap = _between(findings, simple, best)
        low = None if gap is None else gap.seen_from(simple.arm.name)[1][0]
        worst = "" if low is None else f" ({low * 100:+.1f} at worst)"
        if low is not None and low > -findings.study.margin:
            answer = f"{route}: it loses less than {_points(findings)}{worst}."
        else:
            lost = (_balanced(best) - _balanced(simple)) * 100
            answer = (
                f"{route} is the simplest, {lost:.1f} points below {best.arm.route}{worst}: it may "
                f"cost more than {_points(findings)}."
            )
    yield Advice(
        "What if a diagnosis must be explained?",
        answer,
        "The simplest route (a linear classifier on fixed features before one with a kernel, that "
        "before a network) if the 95 % interval of what it loses to the best is within the margin.",
    )


def _federation(findings: Findings) -> Iterator[Advice]:
    spreads = findings.study.spreads
    by_name = {r.arm.name: r.arm for r in findings.arms}
    for route in findings.study.routes:
        gaps = [
            c
            for c in findings.comparisons
            if c.family == FEDERATION
            and (arm := by_name[c.first]).route == route
            and arm.scale == 1
            and spreads[arm.spread].scheme not in (ALONE, POOLED)
        ]
        if gaps:
            texts = (f"{by_name[c.first].data} {_against(c, c.first)}" for c in gaps)
            yield Advice(
                f"What does federation cost {route}?",
                f"Against pooled data, {'; '.join(texts)}.",
                "Equal if the 90 % interval of the paired difference lies within the margin "
                "(two one-sided tests), better or worse if the paired test is below 5 %; both "
                "corrected by Holm.",
            )


def _alone(findings: Findings) -> Iterator[Advice]:
    spreads = findings.study.spreads
    for route in findings.study.routes:
        arms = [r for r in findings.full if r.arm.route == route]
        own = [r for r in arms if r.arm.site]
        together = [r for r in arms if spreads[r.arm.spread].scheme == NATURAL]
        if own and together:
            best = max(own, key=_balanced)
            gain = (_balanced(together[0]) - _balanced(best)) * 100
            mean = (_balanced(together[0]) - fmean(map(_balanced, own))) * 100
            yield Advice(
                f"What does a hospital gain by taking part ({route})?",
                f"{gain:+.1f} points of balanced accuracy over the best site alone "
                f"({best.arm.site}), {mean:+.1f} over the mean of the {len(own)} sites.",
                "Federated natural sites minus sites alone, on all test lesions.",
            )


def _privacy(findings: Findings) -> Iterator[Advice]:
    study = findings.study
    private = [r for r in findings.full if study.config(r.arm.route).epsilon > 0]
    rule = "Best balanced accuracy among the arms with an epsilon."
    if not private:
        answer = "No arm of this study promises differential privacy."
    else:
        best = max(private, key=_balanced)
        config = study.config(best.arm.route)
        answer = f"{_shown(best)} at epsilon {config.epsilon:g}, delta {config.delta:g}"
        others = [r for r in _ranked(findings) if not study.config(r.arm.route).epsilon]
        if others:
            lost = (_balanced(others[0]) - _balanced(best)) * 100
            answer += f"; {lost:.1f} points below the best without privacy on pooled data"
        answer += "."
    yield Advice("What if lesions must be hidden by differential privacy?", answer, rule)


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
    return sorted(whole, key=_balanced, reverse=True)


def _balanced(result: ArmResult) -> float:
    return result.metrics["balanced_accuracy"].mean


def _complexity(findings: Findings, result: ArmResult) -> int:
    config = findings.study.config(result.arm.route)
    return METHODS[config.method].effort + (config.kernel == "rbf")


def _between(findings: Findings, first: ArmResult, second: ArmResult) -> Comparison | None:
    names = {first.arm.name, second.arm.name}
    gaps = (c for c in findings.comparisons if c.family == ROUTES)
    return next((c for c in gaps if {c.first, c.second} == names), None)


def _against(gap: Comparison, name: str) -> str:
    """Say how an arm of a comparison stands against the other one."""
    lead, interval = gap.seen_from(name)
    bounds = [bound * 100 for bound in interval]
    value = (
        f"{lead * 100:+.1f} points (95 % interval {between(bounds, '+.1f')}, "
        f"corrected p {gap.p_adjusted:.3f})"
    )
    if gap.equivalent:
        return f"is equal within the margin: {value}"
    if gap.different:
        return f"is {'better' if lead > 0 else 'worse'}: {value}"
    return f"is neither shown to be equal nor different: {value}"


def _shown(result: ArmResult) -> str:
    value = result.metrics["balanced_accuracy"]
    return f"{result.arm.name} ({value.mean:.3f}, {between((value.low, value.high))})"


def _points(findings: Findings) -> str:
    return points(findings.study.margin)
