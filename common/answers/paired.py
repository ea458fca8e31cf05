"""Two models on the same lesions: counts that add, and what follows from them of a change.

A share of lesions changes by those of which one model is right and the other wrong, so four counts
of each diagnosis are enough for a paired change and its standard error: McNemar, "Note on the
sampling error of the difference between correlated proportions", Psychometrika 12, 1947.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from statistics import NormalDist
from typing import ClassVar, NamedTuple, Self

import numpy as np

from common.answers.answering import Answering, AnswerOptions
from common.answers.basis import AnswerBasis
from common.answers.operating import target_members, target_probabilities, targets_of
from common.answers.prediction_sets import members
from common.arrays import Bools, Floats, Ints
from common.statistics.calibration import decisions, probabilities
from common.statistics.confusion import count, mean_defined, ratio
from common.statistics.sums import Sums
from common.task import Task

FIGURES = {
    "balanced_accuracy": "balanced accuracy",
    "melanoma_sensitivity": "melanoma screening, sensitivity",
    "coverage": "coverage of 95 % sets",
}
"""What a new model must not lose, and what it is called."""

LEAST = 10
"""Lesions that a figure must rest on before its change is judged."""

NEVER = 2.0
"""A threshold that no probability reaches."""

INCUMBENT, PAIRED, PAIRED_GROUPS = "incumbent", "paired", "paired_groups"
"""Questions to the sites: here is the model in use; then count, over all lesions or by groups."""

OF_INCUMBENT = "incumbent_"
"""What the names of its rules begin with in a question."""

_LEVEL = 0.05


class Said(NamedTuple):
    """Whether a model is right about n lesions.

    Attributes
    ----------
    correct : (n,) whether its decision (rule ``balanced``) is the diagnosis.
    covered : (n,) whether its prediction set holds the diagnosis.
    flagged : (n,) whether its screening rule for melanoma flags the image.
    """

    correct: Bools
    covered: Bools
    flagged: Bools


@dataclass(frozen=True)
class DecisionRules:
    """What makes answers of a model's scores, by the default options and for all patients alike.

    Attributes
    ----------
    calibration : (2, n_classes) scales and biases of the probabilities.
    base_rates : (n_classes,) frequencies of the classes.
    sets : (n_classes,) least probability of a class in a prediction set; 2 where there are none.
    melanoma : () least probability of melanoma that is flagged; 2 where there is no rule.
    """

    calibration: Floats
    base_rates: Floats
    sets: Floats
    melanoma: Floats

    @classmethod
    def of(cls, basis: AnswerBasis) -> Self:
        """Return the rules of a model."""
        answering = Answering(basis, AnswerOptions())
        chosen = answering.thresholds()
        points = [point.threshold for point in answering.points if point.target == "mel"]
        return cls(
            basis.calibration,
            basis.base_rates,
            np.full(basis.task.n_classes, NEVER) if chosen is None else chosen.values,
            np.array(points[0] if points else NEVER),
        )

    def to_record(self, prefix: str = "") -> dict[str, Floats]:
        """Return the arrays by name, of the shapes that the class documents."""
        return {f"{prefix}{name}": np.asarray(array) for name, array in vars(self).items()}

    @classmethod
    def from_record(cls, arrays: Mapping[str, Floats], prefix: str = "") -> Self:
        """Read what :meth:`to_record` gives.

        Parameters
        ----------
        arrays : by name, of the shapes that the class documents.
        """
        return cls(*(arrays[f"{prefix}{name}"] for name in (f.name for f in fields(cls))))

    def says(self, figure: str) -> bool:
        """Tell whether there is a rule behind one of ``FIGURES``."""
        rules = {"melanoma_sensitivity": self.melanoma, "coverage": self.sets}
        return bool((rules.get(figure, np.zeros(1)) < NEVER).all())

    def judge(self, scores: Floats, labels: Ints, task: Task) -> Said:
        """Tell whether scores (n, n_classes) are right about lesions of ``labels`` (n,)."""
        chances = probabilities(scores, self.calibration)
        inside = members(chances, self.sets)[np.arange(len(labels)), labels]
        flagged = np.zeros(len(labels), dtype=np.bool_)
        if "mel" in targets_of(task):
            column = targets_of(task).index("mel")
            flagged = target_probabilities(chances, task)[:, column] >= self.melanoma
        return Said(decisions(scores, self.calibration, self.base_rates) == labels, inside, flagged)


RULE_NAMES = tuple(
    f"{model}{field.name}" for model in (OF_INCUMBENT, "") for field in fields(DecisionRules)
)
"""Names of the arrays of both models' rules in a question."""


@dataclass(frozen=True)
class PairedCounts(Sums):
    """Lesions, one image each, by whether an old model and a new one are right about them.

    Attributes
    ----------
    correct, covered, flagged : (n_classes, 2, 2) number of lesions by [true class, old, new], as of
        `Said`.
    """

    nonnegative: ClassVar[tuple[str, ...]] = Said._fields
    counted: ClassVar[str | None] = "correct"

    correct: Ints
    covered: Ints
    flagged: Ints

    @property
    def lesions(self) -> Ints:
        """Number of lesions of each class, (n_classes,)."""
        return np.asarray(self.correct.sum(axis=(1, 2)))

    @classmethod
    def zero(cls, task: Task) -> Self:
        """Return the counts of no lesions."""
        nobody = Said(*[np.zeros(0, dtype=np.bool_)] * 3)
        return cls.measure(task, np.zeros(0, dtype=np.int64), nobody, nobody)

    @classmethod
    def measure(cls, task: Task, labels: Ints, old: Said, new: Said) -> Self:
        """Count lesions of classes ``labels`` (n,)."""
        one = np.zeros(len(labels), dtype=np.int64)
        return cls(*(tables[0] for tables in _tables(task, one, 1, labels, old, new)))


@dataclass(frozen=True)
class GroupPairs(Sums):
    """The same counts of each group of lesions; a lesion may be in several groups.

    Attributes
    ----------
    lesions : (groups,) number of lesions.
    correct, covered, flagged : (groups, n_classes, 2, 2) as of `PairedCounts`.
    """

    nonnegative: ClassVar[tuple[str, ...]] = ("lesions", *Said._fields)

    lesions: Ints
    correct: Ints
    covered: Ints
    flagged: Ints

    @classmethod
    def zero(cls, task: Task, groups: int) -> Self:
        """Return the counts of no lesions, in so many groups."""
        none = np.zeros(0, dtype=np.int64)
        nobody = Said(*[np.zeros(0, dtype=np.bool_)] * 3)
        return cls.measure(task, none[None], groups, none, nobody, nobody)

    @classmethod
    def measure(
        cls, task: Task, places: Ints, groups: int, labels: Ints, old: Said, new: Said
    ) -> Self:
        """Count n lesions.

        Parameters
        ----------
        places : (dimensions, n) the group of each in each dimension, in [0, groups); -1 for none.
        groups : number of groups of all dimensions.
        labels : (n,) true classes.
        """
        dimension, lesion = np.nonzero(places >= 0)
        group = places[dimension, lesion]
        pair = (Said(*(each[lesion] for each in said)) for said in (old, new))
        tables = _tables(task, group, groups, labels[lesion], *pair)
        return cls(count((groups,), group), *tables)

    def group(self, number: int) -> PairedCounts:
        """Return the counts of one group."""
        return PairedCounts(*(getattr(self, name)[number] for name in Said._fields))


class Change(NamedTuple):
    """What a new model changes of one of ``FIGURES``.

    Attributes
    ----------
    old, new : of the two models, in [0, 1]; nan where no lesion is there for it.
    error : standard error of the change.
    lesions : that it rests on.
    """

    old: float
    new: float
    error: float
    lesions: int

    @property
    def value(self) -> float:
        """The new model's minus the old one's."""
        return self.new - self.old


def changes(counts: PairedCounts, task: Task) -> dict[str, Change]:
    """Return the change of each of ``FIGURES``; of melanoma only where the task has it."""
    found = {"balanced_accuracy": _mean(counts.correct)}
    if "mel" in targets_of(task):
        melanoma = target_members(task)[:, targets_of(task).index("mel")]
        found["melanoma_sensitivity"] = _mean(counts.flagged[melanoma])
    found["coverage"] = _mean(counts.covered.sum(axis=0, keepdims=True))
    return found


def reach(judged: int) -> float:
    """Return by how many standard errors 95 % intervals of so many changes reach together.

    By Bonferroni's correction: how changes depend on each other, counts of each alone do not say.
    """
    return NormalDist().inv_cdf(1 - _LEVEL / (2 * max(judged, 1)))


def _mean(tables: Ints) -> Change:
    """Return the change of the mean over classes of a share.

    The standard error is as if one lesion more of a class had changed: where none has, the counts
    alone see no error at all.

    Parameters
    ----------
    tables : (classes, 2, 2) lesions by [class, old, new].
    """
    lesions = tables.sum(axis=(1, 2))
    moved = tables[:, 0, 1] + tables[:, 1, 0]
    shares = (
        ratio(tables[:, 1].sum(axis=1), lesions),
        ratio(tables[:, :, 1].sum(axis=1), lesions),
        ratio(moved + 1.0, lesions.astype(np.float64) ** 2),
    )
    old, new, square = (float(mean_defined(each)) for each in shares)
    classes = max(int((lesions > 0).sum()), 1)
    return Change(old, new, float(np.sqrt(square / classes)), int(lesions.sum()))


def _tables(
    task: Task, group: Ints, groups: int, labels: Ints, old: Said, new: Said
) -> Iterator[Ints]:
    """Yield the tables (groups, n_classes, 2, 2) of each field of ``Said``."""
    shape = (groups, task.n_classes, 2, 2)
    for before, after in zip(old, new, strict=True):
        yield count(shape, group, labels, before.astype(np.int64), after.astype(np.int64))
