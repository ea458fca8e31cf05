"""Every number of a study as plain values, and a study's findings from them again."""

import math
from dataclasses import asdict
from typing import Any, cast

import numpy as np

from common.arrays import Floats
from common.json_types import JsonObject, number, plain
from simulations.evaluation.bounded import Bounded
from simulations.evaluation.groups.plain_values import read_by_group
from simulations.evaluation.measures import CALIBRATION_ERRORS
from simulations.study.advice import Advice
from simulations.study.cells import Arm
from simulations.study.cost import RouteCost
from simulations.study.definition import Study
from simulations.study.findings import About, Findings
from simulations.study.judging.paired_tests import Comparison
from simulations.study.results import (
    ACCEPTED,
    FALSE_POSITIVE_RATES,
    ArmResult,
    CellResult,
    Estimate,
    GroupCoverage,
    Reliability,
    SiteQuality,
)

_ACCEPTED = "answered"
_AXIS = "false_positive_rate"


def to_values(findings: Findings, about: About, advices: list[Advice]) -> dict[str, object]:
    """Return all that ``report.json`` holds; what is no number is None."""
    values = {
        "about": about,
        "study": findings.study.model_dump(mode="json"),
        "advice": [asdict(advice) for advice in advices],
        "arms": [_arm(result, findings) for result in findings.arms],
        "comparisons": [{**asdict(c), "verdict": c.verdict} for c in findings.comparisons],
        "routes": {route: asdict(cost) for route, cost in findings.costs.items()},
    }
    return {key: plain(value) for key, value in values.items()}


def from_values(values: JsonObject) -> Findings:
    """Return the findings that ``report.json`` was written from.

    An old report does not hold the reliability of the most likely class, and the intervals of its
    calibration errors are not corrected: the findings are without them.
    """
    return Findings(
        Study.model_validate(values["study"]),
        cast(About, values["about"]),
        [_read_arm(arm) for arm in values["arms"]],
        [_read_comparison(c) for c in values["comparisons"]],
        {route: RouteCost.read(cost) for route, cost in values["routes"].items()},
    )


def _arm(result: ArmResult, findings: Findings) -> dict[str, object]:
    values: dict[str, object] = {
        "name": result.arm.name,
        **result.arm._asdict(),
        "failures": result.failures,
        "missing": result.missing,
    }
    if not result.metrics:
        return values
    cost = findings.cost(result)
    return {
        **values,
        "metrics": {name: asdict(value) for name, value in result.metrics.items()},
        "confusion": result.confusion.tolist(),
        "reliability": _reliability(result.reliability),
        "reliability_of_most_likely": _reliability(result.most_likely),
        "roc": {
            _AXIS: FALSE_POSITIVE_RATES.tolist(),
            **{dx: curve.tolist() for dx, curve in result.roc.items()},
        },
        "sites": {site: _site(quality) for site, quality in result.sites.items()},
        "coverage": {
            dimension: {name: group._asdict() for name, group in groups.items()}
            for dimension, groups in result.coverage.items()
        },
        "referral": None if result.referral is None else _curve(result.referral),
        "by_group": None if result.by_group is None else asdict(result.by_group),
        "cost": None if cost is None else asdict(cost),
        "cells": dict(result.cells),
    }


def _curve(risks: Floats) -> dict[str, object]:
    return {_ACCEPTED: ACCEPTED.tolist(), "risk": risks.tolist()}


def _reliability(bins: Reliability | None) -> dict[str, object] | None:
    if bins is None:
        return None
    return {name: array.tolist() for name, array in bins._asdict().items()}


def _site(quality: SiteQuality) -> dict[str, object]:
    metrics = {name: value._asdict() for name, value in quality.metrics.items()}
    return {
        "images": quality.images,
        "lesions": quality.lesions,
        "metrics": metrics,
        "confusion": quality.confusion.tolist(),
    }


def _read_comparison(values: JsonObject) -> Comparison:
    fields: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in values.items()
        if name != "verdict"
    }
    return Comparison(**fields)


def _read_arm(values: JsonObject) -> ArmResult:
    old = "reliability_of_most_likely" not in values
    curves = {dx: np.array(curve) for dx, curve in values.get("roc", {}).items() if dx != _AXIS}
    return ArmResult(
        arm=Arm(*(values[field] for field in Arm._fields)),
        cells={int(f): cast(CellResult, cell) for f, cell in values.get("cells", {}).items()},
        metrics={n: _read_estimate(n, m, old) for n, m in values.get("metrics", {}).items()},
        confusion=np.array(values.get("confusion", ()), dtype=np.int64),
        reliability=_read_bins(values.get("reliability")),
        most_likely=_read_bins(values.get("reliability_of_most_likely")),
        roc=curves,
        sites={name: _read_site(site, old) for name, site in values.get("sites", {}).items()},
        coverage={
            dimension: {name: GroupCoverage(**group) for name, group in groups.items()}
            for dimension, groups in values.get("coverage", {}).items()
        },
        referral=_read_curve(values.get("referral")),
        failures={int(fold): why for fold, why in values["failures"].items()},
        missing=values["missing"],
        by_group=read_by_group(values.get("by_group")),
    )


def _read_curve(values: JsonObject | None) -> Floats | None:
    return None if values is None else np.array(values["risk"])


def _read_estimate(metric: str, values: JsonObject, old: bool) -> Estimate:
    low, high = _read_bounds(metric, values, old)
    folds = tuple(map(number, values["folds"]))
    return Estimate(number(values["mean"]), number(values["sd"]), low, high, folds)


def _read_site(values: JsonObject, old: bool) -> SiteQuality:
    metrics = {
        name: Bounded(number(metric["value"]), *_read_bounds(name, metric, old))
        for name, metric in values["metrics"].items()
    }
    confusion = np.array(values["confusion"], dtype=np.int64)
    return SiteQuality(values["images"], values["lesions"], metrics, confusion)


def _read_bounds(metric: str, values: JsonObject, old: bool) -> tuple[float, float]:
    if old and metric in CALIBRATION_ERRORS:
        return math.nan, math.nan
    return number(values["low"]), number(values["high"])


def _read_bins(values: JsonObject | None) -> Reliability | None:
    if values is None:
        return None
    return Reliability(**{name: np.array(array) for name, array in values.items()})
