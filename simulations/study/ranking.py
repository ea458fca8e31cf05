"""Which arms stand for what: the best of all, of a route, of sites alone, of private routes."""

import math
from collections.abc import Iterable, Iterator

from common.methods import METHODS
from simulations.study.definition import POOLED
from simulations.study.findings import Findings
from simulations.study.results import ArmResult


def best(results: Iterable[ArmResult]) -> ArmResult | None:
    """Return the arm with the highest mean balanced accuracy; None of none."""
    known = [r for r in results if not math.isnan(r.balanced.mean)]
    return max(known, key=lambda r: r.balanced.mean, default=None)


def best_alone(findings: Findings, route: str = "") -> ArmResult | None:
    """Return the best of the arms that one site trains alone, of a route or of all."""
    alone = (r for r in findings.full if r.arm.site)
    return best(r for r in alone if route in ("", r.arm.route))


def best_private(findings: Findings) -> ArmResult | None:
    """Return the best of the arms that promise differential privacy."""
    return best(r for r in findings.whole if findings.private(r))


def federated(findings: Findings, route: str = "") -> list[ArmResult]:
    """Return the arms whose data lie at several sites, of a route or of all."""
    return [
        r for r in findings.whole if findings.scheme(r) != POOLED and route in ("", r.arm.route)
    ]


def without_privacy(findings: Findings, private: ArmResult) -> ArmResult | None:
    """Return the best arm that does what a private one does, without its noise.

    Its data lie alike, and it trains the network if and only if the private one does.
    """

    def trains_network(result: ArmResult) -> bool:
        return METHODS[findings.study.config(result.arm.route).method].trains_network

    return best(
        r
        for r in findings.full
        if not findings.private(r)
        and r.arm[1:] == private.arm[1:]
        and trains_network(r) == trains_network(private)
    )


def of_each_route(findings: Findings) -> Iterator[ArmResult]:
    """Yield of each route the best federated arm with prediction sets, or the best of all."""
    for route in findings.study.routes:
        whole = [r for r in findings.whole if r.arm.route == route and r.coverage]
        over_sites = [r for r in federated(findings, route) if r in whole]
        if (chosen := best(over_sites) or best(whole)) is not None:
            yield chosen
