"""A linear classifier under differential privacy: the sums of sites, and the noise of a run.

Records are lesions: of each, the mean of all views of all its images, with the numbers of metadata
beside it. A unit adds the mean over its records, each of which is clipped, so the norm of what it
adds is bounded. Sites send one noisy sum of the records themselves, which counts the classes and
centres the records, and then noisy sums of clipped gradients (Abadi et al., "Deep learning with
differential privacy", CCS 2016, algorithm 1).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from common.arrays import Bools, Floats, Ints
from common.config.private import PrivateConfig
from common.config.run import RunConfig
from common.data.metadata import UNKNOWN, encode, even, width
from common.privacy.accounting import SampledGaussian, noise_for
from common.privacy.noise import STEP, check_noise
from common.privacy.public_components import PublicComponents
from common.statistics.sums import Sums
from common.svm.feature_map import FeatureMap

Labels = Sequence[str] | NDArray[np.str_]

OVERVIEW_NORM = math.sqrt(2)
"""Largest norm of what a unit adds to an overview."""

CLASS_SUMS = 4.0
"""Factor of class sums beside second moments: means need less noise than the scatter."""

MOMENTS_NORM = math.hypot(1.0, CLASS_SUMS)
"""Largest norm of what a unit adds to the moments of a linear discriminant analysis."""

_MOST_VALUES = 10**8
"""Most values of a noisy sum."""

_OVERVIEW_SHARE = 0.15
"""Of the budget, what the overview takes: at epsilon 1 noisy counts of rare classes cost most."""

_LEAST_SQUARE = 1e-2

_SOFTMAX_INTERCEPT = 0.3
"""The number beside a record that a softmax's intercepts weigh. At 1 it took half of the clip,
which they hardly need where scores are offset; one-vs-rest intercepts have further to go."""


class Plan(NamedTuple):
    """What a run spends: on its overview, and on its gradients or moments."""

    overview: SampledGaussian
    training: SampledGaussian


def plan(config: PrivateConfig) -> Plan | None:
    """Return the noise with which a run keeps its epsilon; None where it promises none.

    Raises
    ------
    ConfigError
        If no noise is enough, or it is more than sums hold.
    """
    if not config.epsilon:
        return None
    planned = _plan(config.epsilon, config.delta, config.rate, config.releases)
    norm = MOMENTS_NORM if config.head == "lda" else config.clip_norm
    check_noise(OVERVIEW_NORM, planned.overview.noise, _MOST_VALUES)
    check_noise(norm, planned.training.noise, _MOST_VALUES)
    return planned


@lru_cache(maxsize=16)
def _plan(epsilon: float, delta: float, rate: float, steps: int) -> Plan:
    whole = noise_for(epsilon, delta, rate=1.0, steps=1)
    first = SampledGaussian(whole / math.sqrt(_OVERVIEW_SHARE), 1.0)
    rest = noise_for(epsilon, delta, rate, steps, [first])
    return Plan(first, SampledGaussian(rest, rate, steps))


@dataclass(frozen=True)
class NoisySum(Sums):
    """A sum over records with its noise.

    Attributes
    ----------
    values : of the question's shape, in multiples of the ring's step.
    """

    values: Ints

    @classmethod
    def zero(cls, *shape: int) -> Self:
        """Return the sum over no records, without noise."""
        return cls(np.zeros(shape, dtype=np.int64))

    def decoded(self) -> Floats:
        """Return the sum in real numbers, of the shape of ``values``."""
        return np.asarray(self.values * STEP, np.float64)


class Units(NamedTuple):
    """A site's privacy units, such as patients, with their records, such as lesions.

    Attributes
    ----------
    X : (n, d) records of norm 1 at most.
    y : (n,) their labels.
    unit : (n,) number of the unit that each belongs to, from 0.
    part : (n,) of a lesion that each stands for, in (0, 1].
    """

    X: Floats
    y: Ints
    unit: Ints
    part: Floats

    @classmethod
    def apart(cls, X: Floats, y: Ints) -> Self:
        """Return records ``X`` (n, d) with labels ``y`` (n,), each a unit of its own."""
        return cls(X, y, np.arange(len(y)), np.ones(len(y)))

    @classmethod
    def group(cls, X: Floats, y: Ints, lesions: Labels, units: Labels) -> Self:
        """Average the images of each lesion and unit.

        Parameters
        ----------
        X : (n, d) images.
        y : (n,) labels.
        lesions, units : (n,) names.
        """
        pairs = np.stack([units, lesions], axis=1)
        _, first, index = np.unique(pairs, axis=0, return_index=True, return_inverse=True)
        numbers = np.unique(np.asarray(units)[first], return_inverse=True)[1]
        return cls(group_means(X, index), y[first], numbers, np.ones(len(first)))

    def seen_without(self, hidden: Floats, share: float) -> "Units":
        """Return the units with a second record of each lesion, as if nothing was known of it.

        A classifier that is trained on both answers without metadata too. Both are the lesion's
        own, so that its unit adds no more than before and no draw depends on another lesion.

        Parameters
        ----------
        hidden : (width,) the last numbers of a record of which nothing is known.
        share : part of a lesion that the second records stand for, in [0, 1).
        """
        if not (share and len(hidden)):
            return self
        without = self.X.copy()
        without[:, -len(hidden) :] = hidden
        return Units(
            np.concatenate([self.X, without]),
            np.tile(self.y, 2),
            np.tile(self.unit, 2),
            np.concatenate([(1 - share) * self.part, share * self.part]),
        )

    @property
    def total(self) -> int:
        """How many units there are."""
        return int(self.unit.max(initial=-1)) + 1

    @property
    def share(self) -> Floats:
        """The weight of each record, (n,); the weights of a unit's records sum to 1."""
        return np.asarray(self.part / np.bincount(self.unit, self.part)[self.unit])

    def of(self, drawn: Bools) -> "Units":
        """Return the units whose number is ``drawn``, (total,)."""
        if drawn.all():
            return self
        kept = drawn[self.unit]
        numbers = np.unique(self.unit[kept], return_inverse=True)[1]
        return Units(self.X[kept], self.y[kept], numbers, self.part[kept])


def group_means(X: NDArray[np.floating], index: Ints) -> Floats:
    """Return the means (m, d) of rows of ``X`` (n, d) by their groups ``index`` (n,)."""
    sizes = np.bincount(index)
    totals = np.zeros((len(sizes), X.shape[1]))
    np.add.at(totals, index, X)
    return np.asarray(totals / sizes[:, None])


@lru_cache(maxsize=4)
def public_map(
    n_features: int,
    dimensions: int,
    seed: int,
    columns: tuple[str, ...] = (),
    scale: float = 0.0,
    components: PublicComponents | None = None,
) -> FeatureMap:
    """Return a map to vectors of norm 1 at most, which no lesion of a run has shaped.

    It projects to the leading public components, or at random, drawn from a public seed, where
    there are none. Where there are fewer of them or of features than ``dimensions``, it has as many
    outputs. Then follow the numbers of metadata, from which each column's even shares are
    subtracted, for the data may not choose.

    Parameters
    ----------
    columns : of metadata, whose numbers follow the features.
    scale : size of a column beside the projected features.
    """
    if components:
        centre, projection = components.mean, components.matrix[:, :dimensions]
    else:
        rng = np.random.default_rng([seed, n_features, dimensions])
        matrix = rng.standard_normal((n_features, min(dimensions, n_features)))
        centre, projection = np.zeros(n_features), np.linalg.qr(matrix)[0].astype(np.float64)
    if not columns:
        return FeatureMap(centre, projection, unit=1.0)
    # A column's numbers add to 1, so that their norm is 1 at most.
    unit = 1 / math.sqrt(1 + scale**2 * len(columns))
    beside = width(columns)
    whole = np.zeros(np.add(projection.shape, beside))
    whole[:n_features, : projection.shape[1]] = projection
    whole[n_features:, projection.shape[1] :] = scale * unit * np.eye(beside)
    return FeatureMap(np.concatenate([centre, even(columns)]), whole, unit=unit, beside=beside)


def run_map(n_features: int, config: RunConfig) -> FeatureMap:
    """Return a run's public map of images' ``n_features`` features and the metadata after them."""
    columns, scale = config.metadata, config.metadata_scale[0]
    components = PublicComponents.of(config.feature_spec, n_features)
    return public_map(n_features, config.components, config.seed, columns, scale, components)


def hidden_numbers(feature_map: FeatureMap, columns: tuple[str, ...]) -> Floats:
    """Return the outputs (width,) for ``columns`` of a patient of whom nothing is known."""
    n = feature_map.beside
    last = slice(len(feature_map.mean) - n, None), slice(feature_map.n_outputs - n, None)
    unknown = encode(columns, [UNKNOWN])[0] - feature_map.mean[last[0]]
    return np.asarray(unknown @ feature_map.matrix[last])


def intercept_of(head: str) -> float:
    """Return the number beside a centred record that a head's intercepts weigh."""
    return _SOFTMAX_INTERCEPT if head == "softmax" else 1.0


class Centre(NamedTuple):
    """Moves records by their mean (d,) and scales them to a mean square of about 1.

    Attributes
    ----------
    mean : (d,).
    scale : ().
    intercept : the number beside a record that intercepts weigh, as of :func:`intercept_of`.
    """

    mean: Floats
    scale: Floats
    intercept: float = 1.0

    @classmethod
    def of(cls, mean: Floats, intercept: float = 1.0) -> Self:
        """Return the centre of records of norm 1 whose mean is ``mean`` (d,)."""
        scale = np.array(1 / math.sqrt(max(1 - float(mean @ mean), _LEAST_SQUARE)))
        return cls(mean, scale, intercept)

    def apply(self, X: Floats) -> Floats:
        """Centre ``X`` (n, d) and append a column of the intercept's number, (n, d + 1)."""
        X = (X - self.mean) * self.scale
        return np.pad(X, ((0, 0), (0, 1)), constant_values=self.intercept)

    def fold(self, weights: Floats) -> Floats:
        """Return ``weights`` (n_classes, d + 1) for uncentred records, in the same shape."""
        slopes = weights[:, :-1] * self.scale
        return np.hstack([slopes, self.intercept * weights[:, -1:] - slopes @ self.mean[:, None]])


class Objective(NamedTuple):
    """The loss that training minimises, and the remedy for rare classes.

    Attributes
    ----------
    loss : "softmax", the cross-entropy, or "hinge", the one-vs-rest squared hinge.
    offset : (n_classes,) added to the scores in training.
    class_weight : (n_classes,) in [0, 1], factors of the clipped gradients.
    """

    loss: str
    offset: Floats
    class_weight: Floats


def overview(units: Units, n_classes: int) -> Floats:
    """Return (n_classes + d,): numbers of units by class, then the sum of their mean records."""
    counts = np.bincount(units.y, units.share, minlength=n_classes)
    return np.concatenate([counts, units.share @ units.X])


def clipped_gradients(
    units: Units, centre: Centre, weights: Floats, objective: Objective, clip_norm: float
) -> Floats:
    """Return the sum over units of their records' mean clipped gradient, (n_classes, d + 1).

    Parameters
    ----------
    weights : (n_classes, d + 1) at which the gradients are taken.
    clip_norm : clipping norm, the largest norm of what a record adds.
    """
    X1 = centre.apply(units.X)
    pulls = clipped_pulls(X1, units.y, weights, objective, clip_norm)
    return np.asarray((pulls * units.share[:, None]).T @ X1)


def clipped_pulls(
    X1: Floats, y: Ints, weights: Floats, objective: Objective, clip_norm: float
) -> Floats:
    """Return each record's clipped gradient as factors of the record.

    In a linear layer a record's gradient is an outer product, whose norm is that of its factors
    (Goodfellow, "Efficient per-example gradient computations", arXiv 1510.01799, 2015), so that
    none need be formed.

    Parameters
    ----------
    X1, y : (n, d + 1) centred records with the intercept's column, and (n,) labels.
    weights : (n_classes, d + 1).
    clip_norm : clipping norm, the largest norm of a record's gradient.

    Returns
    -------
    (n, n_classes) factors: a record's clipped gradient is their outer product with its row.
    """
    own = y[:, None] == np.arange(len(weights))
    scores = X1 @ weights.T + objective.offset
    if objective.loss == "softmax":
        chances = np.exp(scores - scores.max(axis=1, keepdims=True))
        pull = chances / chances.sum(axis=1, keepdims=True) - own
    else:
        targets = np.where(own, 1.0, -1.0)
        pull = -2.0 * targets * np.maximum(1.0 - targets * scores, 0.0)
    norms = np.linalg.norm(pull, axis=1) * np.sqrt(np.einsum("ij,ij->i", X1, X1))
    shrink = objective.class_weight[y] * clip_norm / np.maximum(norms, clip_norm)
    return np.asarray(pull * shrink[:, None])
