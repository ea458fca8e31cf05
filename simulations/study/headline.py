"""What a reader sees first: the answer in a sentence, three figures, and what they do not say."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from simulations.study.definition import POOLED
from simulations.study.findings import Findings, groups
from simulations.study.judging.paired_tests import Comparison, points
from simulations.study.names import sentence
from simulations.study.points import SIGNED, amount, in_points, shown, span, spelled, with_interval
from simulations.study.ranking import best, best_alone, best_private, federated, without_privacy
from simulations.study.results import ArmResult


@dataclass(frozen=True)
class Tile:
    """A figure, what it is of, and what stands beside it."""

    title: str
    value: str
    text: str


@dataclass(frozen=True)
class Headline:
    """The first screen of a report, in words."""

    answer: str
    tiles: Sequence[Tile]
    limits: str


def headline(findings: Findings) -> Headline:
    """Return what the figures say at first sight."""
    top = best(findings.full)
    if top is None:
        return Headline("No arm has a balanced accuracy.", (), _limits(findings))
    tiles = (_melanoma(findings, top), _cost(findings, top), _privacy(findings))
    return Headline(_answer(findings, top), tiles, _limits(findings))


def standing(findings: Findings, c: Comparison, other: str = "") -> str:
    """Say how a comparison's first arm stands against its second, which has another name."""
    to, than, against = (f" {word} {other}" if other else "" for word in ("to", "than", "from"))
    if findings.identical(c):
        return f"identical{to}"
    if c.equivalent:
        also = f", though {c.direction}" if c.different else ""
        return f"equal{to} within {points(c.margin)}{also} ({in_points(c.difference, SIGNED)})"
    if c.different:
        bounds = sorted(map(abs, c.interval))
        return f"{with_interval(abs(c.difference), bounds)} {c.direction}{than}"
    value = f"{in_points(c.difference, SIGNED)}, {span(c.interval, SIGNED)}"
    return f"shown neither to differ{against} nor to be equal ({value})"


def _answer(findings: Findings, top: ArmResult) -> str:
    group = next(g for g in groups(findings.full) if top in g)
    route, value = findings.names.routes[top.arm.route], top.balanced
    *others, last = (_where(findings, r) for r in group)
    where = f"the same {', '.join(others)} and {last}" if others else ""
    which = "the highest" if len(findings.full) > len(group) else "a"
    parts = (
        f"{sentence(route)}{'' if others else f' {last}'} reaches {which} balanced accuracy",
        spelled(value.mean, (value.low, value.high)),
        where,
    )
    begin = ", ".join(part for part in parts if part)
    clauses = [*_above_pooled(findings, group), *_against_alone(findings, top)]
    answer = f"{begin}: {' and '.join(clauses)}" if clauses else begin
    return f"{'; '.join((answer, *_below_pooled(findings, group)))}."


def _where(findings: Findings, result: ArmResult) -> str:
    """Say how an arm's data lie, to follow its route."""
    way = findings.names.way(result.arm)
    if result.arm.site:
        return f"at {result.arm.site} alone"
    if findings.scheme(result) == POOLED:
        return way.replace("pooled", "on pooled data", 1)
    return f"federated over {way}"


def _above_pooled(findings: Findings, group: Sequence[ArmResult]) -> Iterator[str]:
    """Say how the best stands against pooled data, if that is another arm."""
    gap = findings.against_pooled(group[0])
    if gap is not None and not _holds_pooled(findings, group) and not group[0].arm.site:
        yield standing(findings, gap, "pooled data")


def _below_pooled(findings: Findings, group: Sequence[ArmResult]) -> Iterator[str]:
    """Say what federation does to the best route, if pooled data are the best."""
    if _holds_pooled(findings, group):
        among = federated(findings, group[0].arm.route)
        other = best(r for r in among if r not in group)
        if other is not None and (gap := findings.against_pooled(other)) is not None:
            yield f"{_where(findings, other)} it is {standing(findings, gap)}"


def _holds_pooled(findings: Findings, group: Sequence[ArmResult]) -> bool:
    return any(findings.scheme(r) == POOLED for r in group)


def _against_alone(findings: Findings, top: ArmResult) -> Iterator[str]:
    """Say what the best has over the best site alone, or that a site alone is the best."""
    if top.arm.site:
        if (other := best(findings.whole)) is not None:
            yield f"all sites reach {shown(other.balanced)} at most ({_named(findings, other)})"
        return
    alone = best_alone(findings)
    if alone is not None:
        lead = in_points(top.balanced.mean - alone.balanced.mean)
        route = findings.names.routes[alone.arm.route]
        yield f"{lead} above the best site alone ({route} at {alone.arm.site})"


def _melanoma(findings: Findings, top: ArmResult) -> Tile:
    value = top.metrics["melanoma_sensitivity"]
    title = "Melanoma sensitivity at 95 % specificity"
    if math.isnan(value.mean):
        return Tile(title, "not measured", "no melanoma among the test lesions")
    bounds = "" if math.isnan(value.low) else f"{span((value.low, value.high))}; "
    return Tile(title, f"{in_points(value.mean)} points", f"{bounds}{_named(findings, top)}")


def _cost(findings: Findings, top: ArmResult) -> Tile:
    """Tell what the best federated arm asks of a site, and the one that asks for least there."""
    title = "Computing and traffic of a site"
    best_of_route = best(federated(findings, top.arm.route))
    chosen = best_of_route or best(federated(findings)) or best(findings.whole)
    if chosen is None or findings.cost(chosen) is None:
        return Tile(title, "not measured", "")
    alike = [r for r in findings.full if r.arm[1:] == chosen.arm[1:] and findings.cost(r)]
    least = min(alike, key=lambda r: _site_seconds(findings, r))
    text = _named(findings, chosen)
    if _site_seconds(findings, least) < _site_seconds(findings, chosen) / 2:
        route = findings.names.routes[least.arm.route]
        text += f"; least: {route}, {_at_a_site(findings, least)}"
    return Tile(title, _at_a_site(findings, chosen), text)


def _site_seconds(findings: Findings, result: ArmResult) -> float:
    cost = findings.cost(result)
    return math.inf if cost is None else cost.site_seconds


def _at_a_site(findings: Findings, result: ArmResult) -> str:
    cost = findings.cost(result)
    if cost is None:
        return "-"
    return f"{amount(cost.site_seconds / 60)} min, {amount(cost.site_bytes / 1e6)} MB"


def _privacy(findings: Findings) -> Tile:
    """Tell what the best private arm has less than the same kind of route without noise."""
    title, private = "What privacy costs", best_private(findings)
    if private is None:
        return Tile(title, "not tried", "no arm promises differential privacy")
    other = without_privacy(findings, private)
    other = other or best(r for r in findings.full if not findings.private(r))
    if other is None:
        return Tile(title, f"{shown(private.balanced)} points", _named(findings, private))
    gap = findings.comparison(private, other)
    lead, bounds = private.balanced.mean - other.balanced.mean, ""
    if gap is not None:
        lead, interval = gap.seen_from(private.arm.name)
        bounds = f"{span(interval, SIGNED)}; "
    names = findings.names
    pair = f"{names.arm(private.arm)}, against {names.arm(other.arm)}"
    if private.arm[1:] == other.arm[1:]:
        routes = (names.routes[r.arm.route] for r in (private, other))
        pair = f"{' against '.join(routes)}, {names.way(private.arm)}"
    return Tile(title, f"{in_points(lead, SIGNED)} points", f"{bounds}{pair}")


def _limits(findings: Findings) -> str:
    lacking = sum(len(r.failures) + len(r.missing) for r in findings.arms)
    parts = (
        f"{findings.about['images']} images of {findings.about['lesions']} lesions",
        f"{lacking} of the trainings gave no model" if lacking else "",
        "sites simulated on one machine",
        "intervals (95 %) say what other lesions would change, not what training again would",
        "research software, not a medical device",
    )
    return f"{'; '.join(part for part in parts if part)}."


def _named(findings: Findings, result: ArmResult) -> str:
    return findings.names.arm(result.arm)
