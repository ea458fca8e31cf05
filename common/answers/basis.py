"""What a model's answers rest on beside its scores; stored in its file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Self

import numpy as np

from common.answers.appearance import SIZE, Appearance
from common.answers.counts import AnswerCounts
from common.answers.group_thresholds import GroupLesions
from common.answers.operating import targets_of
from common.arrays import Floats, Ints
from common.data.patient_groups import PatientGroups
from common.statistics.calibration import decisions, probabilities
from common.statistics.metrics import SCORE_BINS
from common.storage.verified import Array, Kind
from common.task import Task

_MOST_LESIONS = 10**9
_BEYOND = 1e9
"""A threshold that no distance reaches, for a file that holds finite numbers only."""

_BY_GROUP = "by_group"

_UNKNOWN = Appearance(np.zeros(SIZE), np.zeros((SIZE, SIZE)))


@dataclass(frozen=True)
class AnswerBasis:
    """The task, calibration, base rates, and the calibration lesions.

    Attributes
    ----------
    task : the diagnoses, in the order of all arrays over classes.
    calibration : (2, n_classes) scales and biases of the probabilities.
    base_rates : (n_classes,) frequencies of the classes among the training images.
    lesions : counts of the calibration lesions, whose images no scoring fit had seen; none in
        models without.
    appearance : how lesions look; None where it was not learned.
    by_site : of each site the histogram (SCORE_BINS,) of the probabilities that its calibration
        lesions' own classes have, by the site's name; empty where the coordinator saw none.
    by_group : the calibration lesions of groups of patients, where these have screening thresholds
        of their own; else None.
    """

    task: Task
    calibration: Floats
    base_rates: Floats
    lesions: AnswerCounts
    by_site: Mapping[str, Ints]
    appearance: Appearance | None
    by_group: GroupLesions | None = None

    @classmethod
    def of(
        cls,
        task: Task,
        calibration: Floats,
        base_rates: Floats,
        lesions: AnswerCounts | None = None,
        by_site: Mapping[str, AnswerCounts] = MappingProxyType({}),
        appearance: Appearance | None = None,
        by_group: GroupLesions | None = None,
    ) -> Self:
        """Return the basis of counts over calibration lesions, of all sites and of each.

        Parameters
        ----------
        calibration, base_rates : as of the attributes, of their shapes.
        lesions : counts of all calibration lesions; None where there are none.
        """
        each = {site: counts.probability[:, 1].sum(axis=0) for site, counts in by_site.items()}
        counted = AnswerCounts.zero(task) if lesions is None else lesions
        return cls(task, calibration, base_rates, counted, each, appearance, by_group)

    def probabilities(self, scores: Floats) -> Floats:
        """Return calibrated probabilities (n, n_classes) of ``scores`` (n, n_classes)."""
        return probabilities(scores, self.calibration)

    def decide(self, scores: Floats) -> Ints:
        """Return classes (n,) for ``scores`` (n, n_classes) by the rule ``balanced``."""
        return decisions(scores, self.calibration, self.base_rates)

    def to_record(self) -> dict[str, Array]:
        """Return the arrays by name, of the shapes that :func:`expected_kinds` documents."""
        histograms = list(self.by_site.values())
        looks = self.appearance or _UNKNOWN
        return {
            "calibration": self.calibration,
            "base_rates": self.base_rates,
            **{f"lesions/{name}": array for name, array in self.lesions.to_record().items()},
            "by_site": np.array(histograms, dtype=np.int64).reshape(-1, SCORE_BINS),
            **{f"appearance/{name}": array for name, array in looks.to_record().items()},
            "appearance/threshold": np.array(min(looks.threshold, _BEYOND)),
            **({} if self.by_group is None else {_BY_GROUP: self.by_group.screening}),
        }

    @classmethod
    def take(
        cls,
        task: Task,
        arrays: dict[str, Array],
        sites: Sequence[str],
        groups: PatientGroups | None = None,
    ) -> Self:
        """Take the basis out of a model's arrays, which were checked for type and shape.

        Parameters
        ----------
        arrays : of :meth:`to_record`, and others, which stay.
        sites : names of the sites of ``by_site``.
        groups : those of ``by_group``; None where there are none.

        Raises
        ------
        ValueError
            If they hold what no basis has.
        """
        taken = {name: arrays.pop(name) for name in expected_kinds(task, len(sites), groups)}
        rates = taken["base_rates"]
        if not (rates >= 0).all() or not rates.any():
            raise ValueError("array 'base_rates' has values that no frequencies have")
        counted = _part(taken, "lesions/")
        of_groups = [taken[_BY_GROUP]] if groups else []
        for histograms in (*counted.values(), taken["by_site"], *of_groups):
            if ((histograms < 0) | (histograms > _MOST_LESIONS)).any():
                raise ValueError("its calibration lesions have numbers that no counts are")
        by_site = dict(zip(sites, taken["by_site"], strict=True))
        looks = _part(taken, "appearance/")
        threshold = float(looks.pop("threshold"))
        known = looks["whitening"].any()
        appearance = Appearance(**looks, threshold=threshold) if known else None
        counts = AnswerCounts(**counted)
        by_group = GroupLesions(groups, of_groups[0]) if groups else None
        return cls(task, taken["calibration"], rates, counts, by_site, appearance, by_group)


def _part(arrays: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    return {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}


def expected_kinds(
    task: Task, n_sites: int, groups: PatientGroups | None = None
) -> dict[str, Kind]:
    """Return the types and shapes of a basis's arrays by name, for so many sites."""
    n_classes = task.n_classes
    screening = (len(targets_of(task)), 2, SCORE_BINS)
    of_groups = {_BY_GROUP: Kind("I64", (len(groups.names), *screening))} if groups else {}
    histograms = (n_classes, 2, SCORE_BINS)
    return {
        "calibration": Kind("F64", (2, n_classes)),
        "base_rates": Kind("F64", (n_classes,)),
        "lesions/probability": Kind("I64", histograms),
        "lesions/cumulative": Kind("I64", histograms),
        "lesions/screening": Kind("I64", screening),
        "lesions/confidence": Kind("I64", (2, SCORE_BINS)),
        "lesions/confusion": Kind("I64", (n_classes, n_classes)),
        "by_site": Kind("I64", (n_sites, SCORE_BINS)),
        "appearance/mean": Kind("F64", (SIZE,)),
        "appearance/whitening": Kind("F64", (SIZE, SIZE)),
        "appearance/threshold": Kind("F64", ()),
        **of_groups,
    }
