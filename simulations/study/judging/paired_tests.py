"""Comparison of two arms: paired differences, tests of them, equivalence."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from common.arrays import Floats
from common.statistics.confusion import balanced_shares
from simulations.evaluation.intervals import Interval, interval
from simulations.study.judging.judged import JudgedArm
from simulations.study.judging.predictions import Predictions

LEVEL = 0.05
"""Chance of a wrong claim."""

_FLIPS = 9999
_BATCH = 500


@dataclass(frozen=True)
class Comparison:
    """An arm's balanced accuracy minus another's, paired over the folds that both finished.

    Attributes
    ----------
    family : the claims that are corrected together.
    interval, inner : 95 % and 90 %; the inner one within the margin is the equivalence test.
    p, p_adjusted : p-value of no difference, from random signs of the lesions' shares in it, and
        the same after Holm's correction.
    p_equivalent, p_equivalent_adjusted : p-value of a difference of the margin or more, and the
        same after Holm's correction.
    auc, auc_interval : the same in macro AUC.
    """

    family: str
    first: str
    second: str
    folds: int
    difference: float
    interval: Interval
    inner: Interval
    p: float
    p_adjusted: float
    p_equivalent: float
    p_equivalent_adjusted: float
    auc: float
    auc_interval: Interval
    margin: float

    @property
    def equivalent(self) -> bool:
        """Whether the two are equal within the margin, at 5 % over the family."""
        return self.p_equivalent_adjusted < LEVEL

    @property
    def different(self) -> bool:
        """Whether one is better than the other, at 5 % over the family."""
        return self.p_adjusted < LEVEL

    @property
    def verdict(self) -> str:
        """What may be said."""
        within = points(self.margin)
        if self.equivalent:
            also = f", though {self.first} is {self.direction}" if self.different else ""
            return f"equal within {within}{also}"
        if self.different:
            return f"{self.first} is {self.direction}"
        return f"undecided: neither different nor equal within {within}"

    @property
    def short(self) -> str:
        """The verdict on the first arm in a word or two."""
        if self.equivalent:
            return f"equal, though {self.direction}" if self.different else "equal"
        return self.direction if self.different else "undecided"

    def seen_from(self, name: str) -> tuple[float, Interval]:
        """Return the difference with its 95 % interval, of this arm minus the other."""
        sign = 1 if self.first == name else -1
        low, high = sorted(sign * bound for bound in self.interval)
        return sign * self.difference, (low, high)

    @property
    def direction(self) -> str:
        """Whether the first arm is better or worse, shown or not."""
        return "better" if self.difference > 0 else "worse"


def points(margin: float) -> str:
    """Return a difference in balanced accuracy in points, hundredths."""
    return f"{margin * 100:g} point" + ("" if margin == 0.01 else "s")


def compare_pairs(
    family: str, pairs: Sequence[tuple[JudgedArm, JudgedArm]], margin: float, seed: int
) -> list[Comparison]:
    """Compare pairs of arms and correct the family's tests for their number.

    References
    ----------
    Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of
    Statistics 6 (1979); Schuirmann, "A comparison of the two one-sided tests procedure", Journal
    of Pharmacokinetics and Biopharmaceutics 15 (1987).
    """
    alone = [c for pair in pairs if (c := _compare(family, *pair, margin, seed)) is not None]
    adjusted = holm([c.p for c in alone])
    equivalent = holm([c.p_equivalent for c in alone])
    return [
        replace(c, p_adjusted=p, p_equivalent_adjusted=e)
        for c, p, e in zip(alone, adjusted, equivalent, strict=True)
    ]


def holm(p: Sequence[float]) -> list[float]:
    """Return p-values adjusted for their number, in the order given."""
    values = np.asarray(p, dtype=np.float64)
    order = np.argsort(values)
    steps = values[order] * np.arange(len(values), 0, -1)
    adjusted = np.empty(len(values))
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return [float(value) for value in adjusted]


def _compare(
    family: str, first: JudgedArm, second: JudgedArm, margin: float, seed: int
) -> Comparison | None:
    """Return a comparison as if it were the only one; None without a common fold."""
    folds = [fold for fold in first.resampled if fold in second.resampled]
    if not folds:
        return None
    gap, *resamples = first.mean("balanced_accuracy", folds) - second.mean(
        "balanced_accuracy", folds
    )
    auc, *aucs = first.mean("macro_auc", folds) - second.mean("macro_auc", folds)
    gaps = np.array(resamples)
    p, p_equivalent = _sign_test(first, second, folds, seed), _equivalence_test(gaps, margin)
    return Comparison(
        family=family,
        first=first.arm.name,
        second=second.arm.name,
        folds=len(folds),
        difference=float(gap),
        interval=interval(gaps),
        inner=interval(gaps, 1 - 2 * LEVEL),
        p=p,
        p_adjusted=p,
        p_equivalent=p_equivalent,
        p_equivalent_adjusted=p_equivalent,
        auc=float(auc),
        auc_interval=interval(np.array(aucs)),
        margin=margin,
    )


def _equivalence_test(gaps: Floats, margin: float) -> float:
    """Return the larger p-value of two one-sided tests that differences are within ``margin``."""
    beyond = max((gaps <= -margin).sum(), (gaps >= margin).sum())
    # One more, as the observed one: no p-value of a resampling test is 0.
    return float((beyond + 1) / (len(gaps) + 1))


def _sign_test(first: JudgedArm, second: JudgedArm, folds: Sequence[int], seed: int) -> float:
    """Return the two-sided p-value of no difference in balanced accuracy.

    The difference is a sum over lesions. If the arms were alike, each lesion's part would have
    either sign.
    """
    from scipy.stats import permutation_test

    parts = np.concatenate(
        [_parts(first.predictions[fold], second.predictions[fold]) for fold in folds]
    )
    parts = parts[parts != 0]
    if len(parts) < 2:  # a single lesion's part is as large with either sign
        return 1.0
    test = permutation_test(
        (parts,),
        lambda values, axis: values.sum(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=_FLIPS,
        batch=_BATCH,
        rng=np.random.default_rng([seed, 6]),
    )
    return float(test.pvalue)


def _parts(first: Predictions, second: Predictions) -> Floats:
    """Return what each lesion of a fold adds to the difference in balanced accuracy."""
    labels = first.label
    gain = (first.predicted == labels).astype(np.float64) - (second.predicted == labels)
    _, lesion = np.unique(first.lesion, return_inverse=True)
    return np.bincount(lesion, weights=gain * balanced_shares(labels)).astype(np.float64)
