"""The tables of paired differences, whose last column is the verdict."""

from simulations.study.findings import FEDERATION, LABELS, ROUTES, Findings
from simulations.study.judging.paired_tests import Comparison, points
from simulations.study.points import SIGNED, span, with_interval
from simulations.study.report.tables.table import Row, Table


def differences(findings: Findings, family: str, title: str) -> Table:
    """Return the comparisons of a family."""
    rows = [c for c in findings.comparisons if c.family == family]
    name = _NAMES[family]
    return Table(
        title,
        (
            "arm" if family == FEDERATION else "difference",
            "balanced accuracy",
            "90 % interval",
            "p, Holm",
            "p of equivalence, Holm",
            "macro AUC",
            "verdict",
        ),
        [(name(findings, c), *_cells(findings, c)) for c in rows],
        f"Paired over the same lesions, 95 % intervals in brackets. {len(rows)} tests are "
        f"corrected together. Equal means within {points(findings.study.margin)} of "
        "balanced accuracy: both one-sided tests of the bootstrap below 5 %. All of it says what "
        "other lesions would change, not what training again would: a network's draws of batches "
        "move its figures too.",
        verdict=True,
    )


def _against_pooled(findings: Findings, c: Comparison) -> str:
    return findings.names.arm(findings.by_name(c.first).arm)


def _between_routes(findings: Findings, c: Comparison) -> str:
    first, second = (findings.by_name(name).arm for name in (c.first, c.second))
    return f"{findings.names.routes[first.route]} minus {findings.names.arm(second)}"


def _against_labelled(findings: Findings, c: Comparison) -> str:
    first, second = (findings.names.arm(findings.by_name(n).arm) for n in (c.first, c.second))
    return f"{first} minus {second}"


_NAMES = {FEDERATION: _against_pooled, ROUTES: _between_routes, LABELS: _against_labelled}


def _cells(findings: Findings, c: Comparison) -> Row:
    verdict = findings.verdict(c)
    if findings.identical(c):
        return (verdict, *["-"] * 4, verdict)
    return (
        with_interval(c.difference, c.interval, SIGNED),
        span(c.inner, SIGNED),
        f"{c.p_adjusted:.4f}",
        f"{c.p_equivalent_adjusted:.4f}",
        with_interval(c.auc, c.auc_interval, SIGNED),
        verdict,
    )
