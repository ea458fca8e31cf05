"""How a model's answers do on test lesions: coverage of sets, screening, referral.

Everything follows from added counts of test lesions and the thresholds of calibration lesions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from common.answers.answering import Answering, AnswerOptions
from common.answers.basis import AnswerBasis
from common.answers.counts import AnswerCounts
from common.answers.operating import OperatingPoint, targets_of
from common.answers.prediction_sets import Thresholds
from common.answers.referral import RiskCoverage
from common.arrays import Bools, Ints
from common.json_types import Json
from common.statistics.confusion import ratio
from common.statistics.metrics import score_edges
from common.statistics.proportions import wilson
from common.task import Task

ACCEPTED = (0.8, 0.9)
"""Shares of the lesions that are answered, at which the risk is reported."""


@dataclass(frozen=True)
class SetQuality:
    """How prediction sets do on some lesions.

    Attributes
    ----------
    lesions : (n_classes,) numbers of lesions.
    covered : (n_classes,) numbers of those whose set holds their diagnosis.
    members : number of diagnoses in all sets, without those that are in a set for being likeliest
        alone.
    """

    lesions: Ints
    covered: Ints
    members: int

    @classmethod
    def of(cls, counts: AnswerCounts, thresholds: Thresholds) -> Self:
        """Judge sets by counts of lesions and by thresholds, which lie at edges of bins."""
        by_probability = thresholds.score == "probability"
        histograms = counts.probability if by_probability else counts.cumulative
        inside = _bins_inside(thresholds)
        within = (histograms * inside[:, None]).sum(axis=2)
        return cls(counts.lesions, within[:, 1], int(within.sum()))

    def describe(self) -> dict[str, Json]:
        """Return coverage and mean size as plain values, with 95 % intervals; nan for no lesion."""
        n, covered = int(self.lesions.sum()), int(self.covered.sum())
        return {
            "lesions": n,
            "coverage": covered / n if n else float("nan"),
            "coverage_interval": list(wilson(covered, n)),
            "mean_size": self.members / n if n else float("nan"),
        }


def _bins_inside(thresholds: Thresholds) -> Bools:
    """Return for each class which bins (n_classes, SCORE_BINS) are in a set."""
    edges = score_edges(len(thresholds.values))
    number = np.arange(len(edges) + 1)
    first = np.searchsorted(edges, thresholds.values, side="right")[:, None]
    return np.asarray(number >= first if thresholds.score == "probability" else number <= first)


def performance(
    basis: AnswerBasis, total: AnswerCounts, by_site: Mapping[str, AnswerCounts]
) -> dict[str, Json]:
    """Return how answers do on test lesions, as plain values by name, by the default options.

    Parameters
    ----------
    total : counts of the test lesions of all sites.
    by_site : of each site; none where the coordinator saw none.

    Returns
    -------
    "lesions"; "referral": the risks where the least sure lesions are referred, and the area under
    them (AUGRC); "sets", over all lesions, by class and by site, each site by its own threshold;
    "screening" by target, by the common threshold; "thresholds_by_group", None without; and
    "warnings", what the model lacks.
    """
    answering = Answering(basis, AnswerOptions())
    sites = {
        name: SetQuality.of(counts, thresholds).describe()
        for name, counts in by_site.items()
        if (thresholds := answering.thresholds(name)) is not None
    }
    thresholds = answering.thresholds()
    return {
        "lesions": int(total.confusion.sum()),
        "referral": _referral(total),
        "sets": None if thresholds is None else _sets(basis.task, thresholds, total, sites),
        "screening": {
            point.target: _screening(basis.task, point, total) for point in answering.points
        },
        "thresholds_by_group": _by_group(basis, answering.points),
        "warnings": list(answering.warnings),
    }


def _sets(
    task: Task, thresholds: Thresholds, total: AnswerCounts, sites: Mapping[str, Json]
) -> dict[str, Json]:
    quality = SetQuality.of(total, thresholds)
    return {
        "wanted": thresholds.coverage,
        "overall": quality.describe(),
        "by_class": {
            code: {
                "lesions": int(quality.lesions[c]),
                "coverage": float(ratio(quality.covered[c], quality.lesions[c])),
                "coverage_interval": list(wilson(int(quality.covered[c]), int(quality.lesions[c]))),
                "guaranteed": not bool(thresholds.without_guarantee[c]),
            }
            for c, code in enumerate(task.codes)
        },
        "by_site": sites,
    }


def _screening(task: Task, point: OperatingPoint, total: AnswerCounts) -> dict[str, Json]:
    """Return what the threshold chosen on calibration lesions gives on test lesions."""
    lesions = total.screening[targets_of(task).index(point.target)]
    return {"wanted": point.wanted, **_flagged(lesions, point.threshold, task)}


def _by_group(basis: AnswerBasis, points: Sequence[OperatingPoint]) -> dict[str, Json] | None:
    """Return what thresholds give on each group's calibration lesions, on which they are chosen."""
    if (found := basis.by_group) is None:
        return None
    task, each = basis.task, dict[str, Json]()
    for group in range(len(found.groups.names)):
        of_targets: dict[str, Json] = {}
        for common in points:
            lesions = found.screening[group, targets_of(task).index(common.target)]
            own = found.point(task, group, common)
            of_targets[common.target] = {
                "lesions": int(lesions[1].sum()),
                "common": _flagged(lesions, common.threshold, task),
                "own": _flagged(lesions, own.threshold, task) if own.group else None,
            }
        each[found.name(group)] = of_targets
    return each


def _flagged(lesions: Ints, threshold: float, task: Task) -> dict[str, Json]:
    """Return what a threshold gives on histograms (2, SCORE_BINS) without the target and with."""
    without, having = lesions
    first = int(np.searchsorted(score_edges(task.n_classes), threshold, side="right"))
    found, passed = int(having[first:].sum()), int(without[:first].sum())
    positives, negatives = int(having.sum()), int(without.sum())
    return {
        "threshold": threshold,
        "sensitivity": float(ratio(np.array(found), np.array(positives))),
        "sensitivity_interval": list(wilson(found, positives)),
        "specificity": float(ratio(np.array(passed), np.array(negatives))),
        "specificity_interval": list(wilson(passed, negatives)),
    }


def _referral(total: AnswerCounts) -> dict[str, Json]:
    curve = RiskCoverage.counted(total.confidence)
    risks = {f"risk_at_{share:.0%}".rstrip("%"): float(curve.risk(share)) for share in ACCEPTED}
    return {"augrc": float(curve.augrc()), **risks, "risk_of_all": float(curve.risk(1.0))}
