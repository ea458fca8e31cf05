"""The diagnoses' frequencies where a model is used: stated by a person, or estimated from images.

A model's probabilities are those of the places that trained it. Where diagnoses are rarer or
commoner but look the same (label shift), the right ones follow by Bayes' rule, and the frequencies
can be estimated from images without labels.
"""

from dataclasses import dataclass

import numpy as np

from common.arrays import Floats, Ints
from common.errors import ConfigError, DataError
from common.task import Task
from common.text import printable, suggestion

FLAT = 0.1
"""Standard error, in frequencies' Euclidean norm, above which an estimate is not identifiable."""

DISAGREEMENT = 0.13
"""Total variation between two estimates from which on the classes do not look as in training."""

_QUANTILE = 1.959964  # of the normal distribution, for 95 % intervals
_TOLERANCE = 1e-7
_MAX_STEPS = 10_000
_SUM_TOLERANCE = 0.01


@dataclass(frozen=True)
class Estimate:
    """Frequencies of diagnoses, estimated from images without labels.

    Attributes
    ----------
    frequencies : (n_classes,) most likely ones, which sum to 1.
    low, high : (n_classes,) bounds of their 95 % intervals, in [0, 1]. They hold the chance of the
        draw of images, not errors of the model's probabilities.
    identifiable : whether the images tell the frequencies apart at all: false where the standard
        error in some direction is above `FLAT`.
    confused : the two classes that lie furthest apart in the direction that is known least.
    """

    frequencies: Floats
    low: Floats
    high: Floats
    identifiable: bool
    confused: tuple[int, int]


def for_frequencies(probabilities: Floats, base: Floats, frequencies: Floats) -> Floats:
    """Return the probabilities where classes have other frequencies.

    Parameters
    ----------
    probabilities : (n, n_classes) at the frequencies ``base``; rows sum to 1.
    base : (n_classes,) frequencies that the probabilities are for. A class without any has no
        probability elsewhere, either.
    frequencies : (n_classes,) frequencies of the place of use.

    Returns
    -------
    (n, n_classes) whose rows sum to 1: ``frequencies`` themselves where the model excludes all
    that the place of use has.

    References
    ----------
    Saerens, Latinne, Decaestecker, "Adjusting the outputs of a classifier to new a priori
    probabilities", Neural Computation 14, 2002, equation 2.4.
    """
    joint = probabilities * _ratios(frequencies, base)
    total = joint.sum(axis=1, keepdims=True)
    possible = total > 0
    return np.asarray(np.where(possible, joint / np.where(possible, total, 1.0), frequencies))


def estimate(probabilities: Floats, base: Floats) -> Estimate:
    """Estimate the frequencies of classes among images, by maximum likelihood.

    Each image counts as drawn independently. The likelihood is concave in the frequencies, so that
    expectation-maximisation finds its maximum; that is only one where the classes' probabilities
    are not linearly dependent, which the observed Fisher information tells.

    Parameters
    ----------
    probabilities : (n, n_classes) of n images at the frequencies ``base``; rows sum to 1.
    base : (n_classes,) frequencies that the probabilities are for.

    Raises
    ------
    DataError
        If there are no images.

    References
    ----------
    Saerens, Latinne, Decaestecker (2002), section 2.3 (expectation-maximisation); Garg, Wu,
    Balakrishnan, Lipton, "A unified view of label shift estimation", NeurIPS 2020, section 3 (when
    it is identifiable, and its error by the information's smallest eigenvalue).
    """
    if not len(probabilities):
        raise DataError("there are no images to estimate frequencies from; name some")
    # The likelihood of an image under each class, up to a factor.
    likelihood = probabilities * _ratios(np.ones_like(base), base)
    frequencies = _most_likely(likelihood, base)
    covariance = _covariance(likelihood, frequencies)
    error = np.sqrt(np.diag(covariance))
    variances, directions = np.linalg.eigh(covariance)
    least_known = directions[:, -1]
    return Estimate(
        frequencies,
        np.maximum(frequencies - _QUANTILE * error, 0.0),
        np.minimum(frequencies + _QUANTILE * error, 1.0),
        bool(variances[-1] <= FLAT**2),
        (int(least_known.argmax()), int(least_known.argmin())),
    )


def disagreement(estimated: Estimate, predicted: Floats, confusion: Ints) -> float:
    """Return how far a second, cruder estimate lies away: total variation, in [0, 1].

    It is 0 where there are no calibration lesions to make one of.

    Both estimates are right, up to chance, if the lesions of each class look as they did in
    calibration. Above `DISAGREEMENT` they do not, and neither estimate may be used: at sites with
    other cameras and patients they were wrong by more than the frequencies of training.

    Parameters
    ----------
    estimated : the first estimate, of the same images.
    predicted : (n_classes,) share of the images whose likeliest class is each, which sum to 1.
    confusion : (n_classes, n_classes) number of calibration lesions by [true, likeliest] class.

    References
    ----------
    Lipton, Wang, Smola, "Detecting and correcting for label shift with black box predictors", ICML
    2018 (the second estimate); Hausman, "Specification tests in econometrics", Econometrica 46,
    1978 (comparing two estimators that only agree under the model).
    """
    present = confusion.sum(axis=1) > 0
    if not present.any():
        return 0.0
    shares = confusion[present] / confusion[present].sum(axis=1, keepdims=True)
    second = np.zeros(len(predicted))
    second[present] = np.maximum(np.linalg.lstsq(shares.T, predicted, rcond=None)[0], 0.0)
    return float(np.abs(second / second.sum() - estimated.frequencies).sum() / 2)


def parse_prevalence(text: str, task: Task) -> Floats:
    """Read frequencies such as ``akiec=0.02,bcc=0.03,...``, all diagnoses of a task named once.

    Returns
    -------
    (n_classes,) which sum to 1. A diagnosis that does not occur may have 0.

    Raises
    ------
    ConfigError
        If a diagnosis is unknown, missing or named twice, a frequency is no number in [0, 1], or
        they do not add up to 1 within 0.01.
    """
    named: dict[str, float] = {}
    for part in text.split(","):
        code, _, number = (word.strip() for word in part.partition("="))
        if code not in task.codes:
            raise ConfigError(
                f"prevalence: '{printable(code)}' is no diagnosis{suggestion(code, task.codes)}; "
                f"name {', '.join(task.codes)}"
            )
        if code in named:
            raise ConfigError(f"prevalence: '{code}' is named twice; name each diagnosis once")
        named[code] = _frequency(code, number)
    if missing := [code for code in task.codes if code not in named]:
        raise ConfigError(
            f"prevalence: {', '.join(missing)} missing; name all diagnoses, with 0 for none"
        )
    frequencies = np.array([named[code] for code in task.codes])
    total = float(frequencies.sum())
    if abs(total - 1) > _SUM_TOLERANCE:
        raise ConfigError(f"prevalence: the frequencies add up to {total:.4g}; they must to 1")
    return np.asarray(frequencies / total)


def _frequency(code: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise ConfigError(
            f"prevalence: '{code}' has '{printable(text)}'; give a number from 0 to 1"
        )
    return value


def _ratios(frequencies: Floats, base: Floats) -> Floats:
    """Return ``frequencies / base`` (n_classes,), 0 for classes that the model does not know."""
    return np.divide(frequencies, base, out=np.zeros(len(base)), where=base > 0)


def _most_likely(likelihood: Floats, start: Floats) -> Floats:
    """Return the frequencies (n_classes,) that make the images most likely."""
    frequencies = start / start.sum()
    for _ in range(_MAX_STEPS):
        posterior = likelihood * frequencies
        following = (posterior / posterior.sum(axis=1, keepdims=True)).mean(axis=0)
        step = np.abs(following - frequencies).max()
        frequencies = following
        if step < _TOLERANCE:
            break
    return np.asarray(frequencies)


def _covariance(likelihood: Floats, frequencies: Floats) -> Floats:
    """Return the estimate's covariance (n_classes, n_classes): the inverse observed information.

    Frequencies move only so that their sum stays 1.
    """
    score = likelihood / (likelihood @ frequencies)[:, None]
    n_classes = len(frequencies)
    inside = np.linalg.svd(np.ones((1, n_classes)))[2][1:]
    values, vectors = np.linalg.eigh(inside @ (score.T @ score) @ inside.T)
    # Without information the error is large, not infinite: infinity times 0 is nan.
    variance = 1.0 / np.maximum(values, 1e-6)
    directions = inside.T @ vectors
    return np.asarray((directions * variance) @ directions.T)
