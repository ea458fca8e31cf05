"""Probabilities from decision values: multinomial Platt scaling, fitted from sums.

Guo et al., "On calibration of modern neural networks", ICML 2017, section 4.2 ("vector
scaling"): ``p = softmax(scale * scores + bias)`` with one scale and bias a class, fitted on
decision values of records that the scoring fit has not seen. The most probable parameters
under a Gaussian prior that holds the classes' scales together: a class of a few records that
are all told apart would have a scale without bound, and one such class spoils the others.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from common.arrays import Floats, Ints
from common.statistics.lbfgs import minimise
from common.statistics.sums import Sums

_TOLERANCE = 1e-3  # norm of the mean gradient, in nats
_MAX_ROUNDS = 60
SPREAD = 0.2
"""How closely the classes' scales are held together by default; docs/results.md compares."""

_COMMON = 1e-3
"""Standard deviation where the classes share a scale, but for rounding."""

_WIDE = 100.0
"""Standard deviation of the mean scale about 1, and of a bias about 0: neither is held."""


@dataclass(frozen=True)
class CalibrationSums(Sums):
    """Negative log-likelihood, its gradient and curvature, summed over records.

    Attributes
    ----------
    count : () number of records.
    loss : () in nats.
    gradient : (2, n_classes), of the scales and the biases.
    curvature : (3, n_classes) second derivatives within each class: by its scale, by
        scale and bias, by its bias.
    """

    nonnegative: ClassVar[tuple[str, ...]] = ("count", "loss")
    counted: ClassVar[str | None] = "count"

    count: Ints
    loss: Floats
    gradient: Floats
    curvature: Floats

    @classmethod
    def zero(cls, n_classes: int) -> Self:
        """Return the sums over no records."""
        return cls(np.array(0), np.array(0.0), np.zeros((2, n_classes)), np.zeros((3, n_classes)))


def uncalibrated(n_classes: int) -> Floats:
    """Return the parameters (2, n_classes) that leave the scores as they are."""
    return np.stack([np.ones(n_classes), np.zeros(n_classes)])


def even(n_classes: int) -> Floats:
    """Return frequencies (n_classes,) that favour no class."""
    return np.full(n_classes, 1 / n_classes)


def probabilities(scores: Floats, calibration: Floats) -> Floats:
    """Return ``softmax(scale * scores + bias)``, (n, n_classes).

    Parameters
    ----------
    scores : (n, n_classes) decision values.
    calibration : (2, n_classes) scales and biases.
    """
    logits = calibration[0] * scores + calibration[1]
    logits = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(logits / logits.sum(axis=1, keepdims=True))


def decisions(scores: Floats, calibration: Floats, base_rates: Floats) -> Ints:
    """Return the classes (n,) with the largest ratio of probability to base rate.

    If the probabilities are right, no rule has a better expected balanced accuracy: Menon et al.,
    "Long-tail learning via logit adjustment", ICLR 2021, equation 3.

    Parameters
    ----------
    scores : (n, n_classes) decision values.
    calibration : (2, n_classes) scales and biases.
    base_rates : (n_classes,) frequencies, up to a factor; a class with none is never chosen.
    """
    with np.errstate(divide="ignore"):
        logits = calibration[0] * scores + calibration[1] - np.log(base_rates)
    return np.asarray(np.where(base_rates > 0, logits, -np.inf).argmax(axis=1))


def calibration_sums(scores: Floats, y: Ints, calibration: Floats) -> CalibrationSums:
    """Return the sums of a calibration over records.

    Parameters
    ----------
    scores : (n, n_classes) decision values.
    y : (n,) labels.
    calibration : (2, n_classes) scales and biases.
    """
    p = probabilities(scores, calibration)
    own = np.eye(p.shape[1])[y]
    likelihood = np.maximum(p[own > 0], np.finfo(np.float64).tiny)
    residual = p - own
    gradient = np.stack([(residual * scores).sum(axis=0), residual.sum(axis=0)])
    spread = p * (1.0 - p)
    curvature = np.stack([(spread * scores**power).sum(axis=0) for power in (2, 1, 0)])
    loss = np.array(-np.log(likelihood).sum())
    return CalibrationSums(np.array(len(y)), loss, gradient, curvature)


def fit(ask: Callable[[Floats], CalibrationSums], n_classes: int, spread: float = SPREAD) -> Floats:
    """Return the most probable calibration (2, n_classes); each evaluation asks for sums once.

    First with a common scale, then with scales that spread about it.

    Parameters
    ----------
    ask : maps a calibration to its sums over all records.
    spread : standard deviation of a class's scale about the scales' mean, relative to it.
    """
    common = _fit(ask, uncalibrated(n_classes), _COMMON)
    return _fit(ask, common, max(spread * abs(common[0].mean()), _COMMON))


def _fit(ask: Callable[[Floats], CalibrationSums], start: Floats, spread: float) -> Floats:
    """Return the most probable calibration (2, n_classes) where scales spread by so much."""
    n_classes = start.shape[1]
    sums = CalibrationSums.zero(n_classes)
    centre, prior = uncalibrated(n_classes).ravel(), _prior_precision(n_classes, spread)

    def evaluate(x: Floats) -> tuple[Floats, Floats]:
        nonlocal sums
        sums = ask(x.reshape(2, n_classes))
        count, pull = max(int(sums.count), 1), (x - centre) @ prior
        loss = np.atleast_1d(sums.loss + 0.5 * (pull * (x - centre)).sum())
        return loss / count, (sums.gradient.reshape(1, -1) + pull) / count

    def newton_step(gradient: Floats) -> Floats:
        """Divide by the prior's curvature and that within each class."""
        by_scale, mixed, by_bias = (np.diag(of_classes) for of_classes in sums.curvature)
        curvature = prior + np.block([[by_scale, mixed], [mixed, by_bias]])
        return np.linalg.solve(curvature, gradient.T).T * max(int(sums.count), 1)

    solution = minimise(evaluate, start.reshape(1, -1), newton_step, _TOLERANCE, _MAX_ROUNDS)
    return solution.x.reshape(2, n_classes)


def _prior_precision(n_classes: int, spread: float) -> Floats:
    """Return the precision (2 * n_classes, 2 * n_classes) of scales and biases."""
    each, none = np.eye(n_classes), np.zeros((n_classes, n_classes))
    mean = np.full((n_classes, n_classes), 1 / n_classes)
    scales = mean / _WIDE**2 + (each - mean) / spread**2
    return np.block([[scales, none], [none, each / _WIDE**2]])
