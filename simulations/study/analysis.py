"""What the cells of a study say together: metrics with intervals, differences, equivalence.

A metric of an arm is the mean of its folds'. Its interval resamples lesions within class and fold,
and takes the mean of the folds again; all arms see the same resamples, so that differences between
two are paired.
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from common.data.dataset import DIAGNOSES
from common.statistics.confusion import balanced_shares
from common.statistics.metrics import Evaluation
from common.verified import read_verified, write_verified
from simulations.study.cells import Arm
from simulations.study.intervals import Interval, interval, resample
from simulations.study.measures import measure

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

FALSE_POSITIVE_RATES = np.linspace(0, 1, 101)
"""At which the mean ROC curve is given."""

LEVEL = 0.05
"""Chance of a wrong claim."""

_FLIPS = 9999
_BATCH = 500


@dataclass(frozen=True)
class Predictions:
    """What a cell said of its fold's test images; arrays of n rows.

    Attributes
    ----------
    image, lesion, source : names.
    label, predicted : classes.
    probabilities : (n, n_classes).
    """

    image: NDArray[np.str_]
    lesion: NDArray[np.str_]
    source: NDArray[np.str_]
    label: Ints
    predicted: Ints
    probabilities: Floats

    def save(self, file: Path) -> None:
        """Write them.

        Raises
        ------
        DataError
            If they cannot be written.
        """
        content = io.BytesIO()
        np.savez(content, **vars(self))
        write_verified(file, content.getvalue())

    @classmethod
    def load(cls, file: Path) -> "Predictions":
        """Read what a cell kept.

        Raises
        ------
        DamagedError
            If it is not what was written.
        """
        with np.load(io.BytesIO(read_verified(file)), allow_pickle=False) as arrays:
            return cls(**arrays)

    @classmethod
    def join(cls, parts: Sequence["Predictions"]) -> "Predictions":
        """Return the rows of all folds."""
        names = vars(parts[0])
        return cls(**{name: np.concatenate([getattr(p, name) for p in parts]) for name in names})

    def select(self, rows: NDArray[np.bool_]) -> "Predictions":
        """Return some of the rows."""
        return Predictions(**{name: array[rows] for name, array in vars(self).items()})


@dataclass(frozen=True)
class Estimate:
    """A metric of an arm: mean and standard deviation over folds, 95 % interval, each fold's."""

    mean: float
    sd: float
    low: float
    high: float
    folds: tuple[float, ...]


class Bounded(NamedTuple):
    """A value with its 95 % interval, which is nan where nothing can be resampled."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class SiteQuality:
    """How an arm does on the test images of one source, all folds together.

    Attributes
    ----------
    metrics : by name; means are over the diagnoses that the source has.
    confusion : number of images by [true, predicted] class.
    """

    images: int
    lesions: int
    metrics: Mapping[str, Bounded]
    confusion: Ints


class Judge:
    """Resamples that all arms share.

    Parameters
    ----------
    seed, repeats : of the resamples.
    """

    def __init__(self, seed: int, repeats: int) -> None:
        self._seed, self._repeats = seed, repeats
        self._weights: dict[int, Floats] = {}

    def measure(self, fold: int, found: Predictions) -> dict[str, Floats]:
        """Return each metric (1 + repeats,) of a fold: as it is, then of every resample."""
        if fold not in self._weights:
            weights = resample(
                found.label, found.lesion, seed=[self._seed, 4, fold], repeats=self._repeats
            )
            self._weights[fold] = np.vstack([np.ones(len(found.label)), weights])
        return measure(found.label, found.predicted, found.probabilities, self._weights[fold])

    def site(self, found: Predictions) -> SiteQuality:
        """Judge what was said of the images of one source."""
        weights = np.ones((1, len(found.label)))
        if len(np.unique(found.label)) > 1:
            seed = [self._seed, 5]
            drawn = resample(found.label, found.lesion, seed=seed, repeats=self._repeats)
            weights = np.vstack([weights, drawn])
        values = measure(found.label, found.predicted, found.probabilities, weights)
        metrics = {
            name: Bounded(float(v[0]), *(interval(v[1:]) if len(v) > 1 else (np.nan, np.nan)))
            for name, v in values.items()
        }
        counts = Evaluation.measure(found.label, found.predicted, found.probabilities)
        lesions = len(np.unique(found.lesion))
        return SiteQuality(len(found.label), lesions, metrics, counts.confusion)


@dataclass(frozen=True)
class ArmResult:
    """An arm with the folds that it finished.

    Attributes
    ----------
    cells : by fold, what the cell kept of itself (``result.json``).
    predictions : by fold.
    resampled : by fold, each metric (1 + repeats,).
    failures : reasons by fold.
    missing : folds that were not trained yet.
    """

    arm: Arm
    cells: Mapping[int, Mapping[str, Any]]
    predictions: Mapping[int, Predictions]
    resampled: Mapping[int, Mapping[str, Floats]]
    sites: Mapping[str, SiteQuality]
    failures: Mapping[int, str]
    missing: Sequence[int]

    @cached_property
    def metrics(self) -> dict[str, Estimate]:
        """Every metric by name; none without a finished fold."""
        names = next(iter(self.resampled.values()), {})
        return {name: self._estimate(name) for name in names}

    def mean(self, metric: str, folds: Sequence[int]) -> Floats:
        """Return a metric's mean over some folds, (1 + repeats,)."""
        values = np.stack([self.resampled[fold][metric] for fold in folds])
        known = values[~np.isnan(values[:, 0])]
        return np.asarray(known.mean(axis=0) if len(known) else values[0])

    @cached_property
    def together(self) -> Predictions:
        """The predictions of all folds."""
        return Predictions.join(list(self.predictions.values()))

    @cached_property
    def counts(self) -> Evaluation:
        """Confusion and reliability of all folds together."""
        found = self.together
        return Evaluation.measure(found.label, found.predicted, found.probabilities)

    def roc(self) -> dict[str, Floats]:
        """Return the mean ROC curve of each class: sensitivity at ``FALSE_POSITIVE_RATES``."""
        from sklearn.metrics import roc_curve

        curves: dict[str, Floats] = {}
        for c, dx in enumerate(DIAGNOSES):
            rows = []
            for found in self.predictions.values():
                positive = found.label == c
                if 0 < positive.sum() < len(positive):
                    false, true, _ = roc_curve(positive, found.probabilities[:, c])
                    rows.append(np.interp(FALSE_POSITIVE_RATES, false, true))
            if rows:
                curves[dx] = np.mean(rows, axis=0)
                curves[dx][0] = 0.0
        return curves

    def _estimate(self, name: str) -> Estimate:
        folds = list(self.resampled)
        mean, *resamples = self.mean(name, folds)
        single = [float(self.resampled[fold][name][0]) for fold in folds]
        known = [value for value in single if not np.isnan(value)]
        sd = float(np.std(known, ddof=1)) if len(known) > 1 else float("nan")
        return Estimate(float(mean), sd, *interval(np.array(resamples)), tuple(single))


@dataclass(frozen=True)
class Comparison:
    """An arm's balanced accuracy minus another's, paired over the folds that both finished.

    Attributes
    ----------
    family : of the claims that are corrected together.
    interval, inner : 95 % and 90 %; the inner one within the margin is the equivalence test.
    p, p_adjusted : of no difference: lesions' shares in it have random signs; Holm.
    p_equivalent, p_equivalent_adjusted : of a difference of the margin or more; Holm.
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
            also = f", though {self.first} is {self._direction}" if self.different else ""
            return f"equal within {within}{also}"
        if self.different:
            return f"{self.first} is {self._direction}"
        return f"undecided: neither different nor equal within {within}"

    @property
    def _direction(self) -> str:
        return "better" if self.difference > 0 else "worse"


def points(margin: float) -> str:
    """Return a difference in balanced accuracy in points, hundredths."""
    return f"{margin * 100:g} point" + ("" if margin == 0.01 else "s")


def compare_pairs(
    family: str, pairs: Sequence[tuple[ArmResult, ArmResult]], margin: float, seed: int
) -> list[Comparison]:
    """Compare pairs of arms and correct the family's tests for their number.

    References
    ----------
    Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of
    Statistics 6 (1979); Schuirmann, "A comparison of the two one-sided tests procedure", Journal
    of Pharmacokinetics and Biopharmaceutics 15 (1987).
    """
    found = [c for pair in pairs if (c := _compare(family, *pair, margin, seed)) is not None]
    adjusted = holm([c["p"] for c in found])
    equivalent = holm([c["p_equivalent"] for c in found])
    return [
        Comparison(**c, p_adjusted=p, p_equivalent_adjusted=e)
        for c, p, e in zip(found, adjusted, equivalent, strict=True)
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
    family: str, first: ArmResult, second: ArmResult, margin: float, seed: int
) -> dict[str, Any] | None:
    """Return a comparison without what depends on the others; None without a common fold."""
    folds = [fold for fold in first.resampled if fold in second.resampled]
    if not folds:
        return None
    gap, *resamples = first.mean("balanced_accuracy", folds) - second.mean(
        "balanced_accuracy", folds
    )
    auc, *aucs = first.mean("macro_auc", folds) - second.mean("macro_auc", folds)
    gaps = np.array(resamples)
    beyond = max((gaps <= -margin).sum(), (gaps >= margin).sum())
    return {
        "family": family,
        "first": first.arm.name,
        "second": second.arm.name,
        "folds": len(folds),
        "difference": float(gap),
        "interval": interval(gaps),
        "inner": interval(gaps, 1 - 2 * LEVEL),
        "p": _sign_test(first, second, folds, seed),
        # One more, as the observed one: no p-value of a resampling test is 0.
        "p_equivalent": float((beyond + 1) / (len(gaps) + 1)),
        "auc": float(auc),
        "auc_interval": interval(np.array(aucs)),
        "margin": margin,
    }


def _sign_test(first: ArmResult, second: ArmResult, folds: Sequence[int], seed: int) -> float:
    """Return the two-sided p-value of no difference in balanced accuracy.

    The difference is a sum over lesions. If the arms were alike, each lesion's part would have
    either sign.
    """
    from scipy.stats import permutation_test

    parts = np.concatenate(
        [_parts(first.predictions[fold], second.predictions[fold]) for fold in folds]
    )
    parts = parts[parts != 0]
    if not len(parts):
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


def by_site(judge: Judge, found: Predictions) -> Iterator[tuple[str, SiteQuality]]:
    """Judge an arm on the test images of each source, where the table names sources."""
    for source in np.unique(found.source):
        if source:
            yield str(source), judge.site(found.select(found.source == source))
