"""What a model's answers rest on beside its scores; stored in its file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Self

import numpy as np

from common.answers.appearance import SIZE, Appearance
from common.answers.counts import AnswerCounts
from common.answers.operating import targets_of
from common.arrays import Floats, Ints
from common.statistics.calibration import decisions, probabilities
from common.statistics.metrics import SCORE_BINS
from common.task import Task
from common.verified import Array, Kind

_MOST_LESIONS = 10**9
_BEYOND = 1e9
"""A threshold that no distance reaches, for a file that holds finite numbers only."""

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
    """

    task: Task
    calibration: Floats
    base_rates: Floats
    lesions: AnswerCounts
    by_site: Mapping[str, Ints]
    appearance: Appearance | None

    @classmethod
    def of(
        cls,
        task: Task,
        calibration: Floats,
        base_rates: Floats,
        lesions: AnswerCounts | None = None,
        by_site: Mapping[str, AnswerCounts] = MappingProxyType({}),
        appearance: Appearance | None = None,
    ) -> Self:
        """Return the basis of counts over calibration lesions, of all sites and of each.

        Parameters
        ----------
        calibration, base_rates : as of the attributes, of their shapes.
        lesions : counts of all calibration lesions; None where there are none.
        """
        each = {site: counts.probability[:, 1].sum(axis=0) for site, counts in by_site.items()}
        counted = AnswerCounts.zero(task) if lesions is None else lesions
        return cls(task, calibration, base_rates, counted, each, appearance)

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
        }

    @classmethod
    def take(cls, task: Task, arrays: dict[str, Array], sites: Sequence[str]) -> Self:
        """Take the basis out of a model's arrays, which were checked for type and shape.

        Parameters
        ----------
        arrays : of :meth:`to_record`, and others, which stay.
        sites : names of the sites of ``by_site``.

        Raises
        ------
        ValueError
            If they hold what no basis has.
        """
        taken = {name: arrays.pop(name) for name in expected_kinds(task, len(sites))}
        rates = taken["base_rates"]
        if not (rates >= 0).all() or not rates.any():
            raise ValueError("array 'base_rates' has values that no frequencies have")
        counted = _part(taken, "lesions/")
        for histograms in (*counted.values(), taken["by_site"]):
            if ((histograms < 0) | (histograms > _MOST_LESIONS)).any():
                raise ValueError("its calibration lesions have numbers that no counts are")
        by_site = dict(zip(sites, taken["by_site"], strict=True))
        looks = _part(taken, "appearance/")
        threshold = float(looks.pop("threshold"))
        known = looks["whitening"].any()
        appearance = Appearance(**looks, threshold=threshold) if known else None
        counts = AnswerCounts(**counted)
        return cls(task, taken["calibration"], rates, counts, by_site, appearance)


def _part(arrays: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    return {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}


def expected_kinds(task: Task, n_sites: int) -> dict[str, Kind]:
    """Return the types and shapes of a basis's arrays by name, for so many sites."""
    n_classes = task.n_classes
    histograms = (n_classes, 2, SCORE_BINS)
    return {
        "calibration": Kind("F64", (2, n_classes)),
        "base_rates": Kind("F64", (n_classes,)),
        "lesions/probability": Kind("I64", histograms),
        "lesions/cumulative": Kind("I64", histograms),
        "lesions/screening": Kind("I64", (len(targets_of(task)), 2, SCORE_BINS)),
        "lesions/confidence": Kind("I64", (2, SCORE_BINS)),
        "lesions/confusion": Kind("I64", (n_classes, n_classes)),
        "by_site": Kind("I64", (n_sites, SCORE_BINS)),
        "appearance/mean": Kind("F64", (SIZE,)),
        "appearance/whitening": Kind("F64", (SIZE, SIZE)),
        "appearance/threshold": Kind("F64", ()),
    }
