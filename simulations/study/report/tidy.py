"""Every number of a study in one tidy list, a row each."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict

from common.arrays import Ints
from simulations.study.cost import RouteCost
from simulations.study.findings import Findings
from simulations.study.judging.paired_tests import Comparison
from simulations.study.results import ArmResult, SiteQuality

Number = float | int | None
Row = tuple[str, str, str, str, Number]

COLUMNS = ("kind", "name", "metric", "statistic", "value")


def tidy(findings: Findings) -> Iterator[Row]:
    """Yield every number once, in the columns ``COLUMNS``."""
    for result in findings.arms:
        name = result.arm.name
        yield from _metrics(findings.task.codes, name, result)
        for site, quality in result.sites.items():
            yield from _site(findings.task.codes, f"{name} at {site}", quality)
        yield from _coverage(name, result)
        yield from _groups(name, result)
        cost = findings.cost(result)
        for metric, number in ({} if cost is None else asdict(cost)).items():
            yield "cost", name, metric, "mean over folds", number
    for comparison in findings.comparisons:
        yield from _difference(comparison)
    for route, measured in findings.costs.items():
        yield from _route(route, measured)


def _metrics(codes: Sequence[str], name: str, result: ArmResult) -> Iterator[Row]:
    for metric, value in result.metrics.items():
        for statistic in ("mean", "sd", "low", "high"):
            yield "arm", name, metric, statistic, getattr(value, statistic)
        for fold, single in zip(result.cells, value.folds, strict=True):
            yield "arm", name, metric, f"fold {fold}", single
    if result.metrics:
        yield from _confusion(codes, "confusion", name, result.confusion)


def _site(codes: Sequence[str], place: str, quality: SiteQuality) -> Iterator[Row]:
    yield "site", place, "test images", "", quality.images
    yield "site", place, "test lesions", "", quality.lesions
    for metric, bounded in quality.metrics.items():
        for statistic, number in bounded._asdict().items():
            yield "site", place, metric, statistic, number
    yield from _confusion(codes, "site confusion", place, quality.confusion)


def _coverage(name: str, result: ArmResult) -> Iterator[Row]:
    for dimension, groups in result.coverage.items():
        for group, covered in groups.items():
            for statistic, number in covered._asdict().items():
                yield "coverage", name, f"{dimension} {group}", statistic, number


def _groups(name: str, result: ArmResult) -> Iterator[Row]:
    for group in () if result.by_group is None else result.by_group.groups:
        of_group = f"{name}, {group.dimension} {group.group}"
        yield "group", of_group, "test lesions", "", group.lesions
        for metric, value in group.metrics.items():
            for statistic, number in value._asdict().items():
                yield "group", of_group, metric, statistic, number
        for kind, gaps in (("group gap", group.gaps), ("group gap, one mix", group.standardised)):
            for metric, gap in gaps.items():
                for statistic, number in asdict(gap).items():
                    yield kind, of_group, metric, statistic, number


def _confusion(codes: Sequence[str], kind: str, name: str, counts: Ints) -> Iterator[Row]:
    for true, row in zip(codes, counts.tolist(), strict=True):
        for called, count in zip(codes, row, strict=True):
            yield kind, name, f"{true} called {called}", "images", count


def _difference(comparison: Comparison) -> Iterator[Row]:
    name = f"{comparison.first} minus {comparison.second}"
    for metric, number in asdict(comparison).items():
        if isinstance(number, tuple):
            for bound, end in zip(number, ("low", "high"), strict=True):
                yield "difference", name, metric, end, bound
        elif isinstance(number, float | int):
            yield "difference", name, metric, "", number


def _route(route: str, cost: RouteCost) -> Iterator[Row]:
    for metric, number in asdict(cost).items():
        pairs = number.items() if isinstance(number, dict) else [("", number)]
        for statistic, single in pairs:
            yield "route", route, metric, str(statistic), single
