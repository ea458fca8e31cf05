"""Calibration from sums is the most probable one that pooled scores would have given."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import approx_fprime, minimize
from scipy.special import log_softmax
from scipy.stats import norm

from common.statistics.calibration import (
    CalibrationSums,
    calibration_sums,
    decisions,
    fit,
    probabilities,
    uncalibrated,
)
from common.statistics.metrics import Evaluation, Metrics
from tests.examples import examples
from tests.records import N_CLASSES, SHARES, Floats, Ints, partitions, total

PLAIN = uncalibrated(N_CLASSES)
seeds = st.integers(0, 2**32 - 1)


def draw_scores(n: int, sharpness: float, seed: int = 0) -> tuple[Floats, Ints]:
    """Draw decision values around -1 in which the own class stands out, more or less surely."""
    rng = np.random.default_rng(seed)
    y = np.append(np.arange(N_CLASSES), rng.choice(N_CLASSES, n - N_CLASSES, p=SHARES))
    evidence = rng.standard_normal((n, N_CLASSES)) + 1.5 * np.eye(N_CLASSES)[y]
    return sharpness * evidence - 1.0, y


SCORES, Y = draw_scores(300, 0.3)


def calibrate(scores: Floats, y: Ints) -> tuple[Floats, int]:
    """Fit on pooled scores; return the parameters and the rounds they took."""
    asked = []

    def ask(parameters: Floats) -> CalibrationSums:
        asked.append(parameters)
        return calibration_sums(scores, y, parameters)

    return fit(ask, N_CLASSES), len(asked)


def mean_loss(parameters: Floats, scores: Floats, y: Ints) -> float:
    return float(calibration_sums(scores, y, parameters.reshape(2, -1)).loss) / len(y)


def mean_gradient(parameters: Floats, scores: Floats, y: Ints) -> Floats:
    return calibration_sums(scores, y, parameters.reshape(2, -1)).gradient.ravel() / len(y)


def test_probabilities_are_a_softmax() -> None:
    p = probabilities(1e3 * SCORES, PLAIN)
    np.testing.assert_allclose(p.sum(axis=1), 1.0)
    expected = np.exp(2 * SCORES + 0.5) / np.exp(2 * SCORES + 0.5).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(probabilities(SCORES, 2 * PLAIN + [[0], [0.5]]), expected)


@given(partitions(Y), seeds)
def test_sums_add_over_any_partition(sites: list[Ints], seed: int) -> None:
    parameters = np.random.default_rng(seed).normal(1.0, 1.0, PLAIN.shape)
    got = total([calibration_sums(SCORES[rows], Y[rows], parameters) for rows in sites])
    want = calibration_sums(SCORES, Y, parameters)
    assert int(got.count) == len(Y)
    for name in ("loss", "gradient", "curvature"):
        np.testing.assert_allclose(getattr(got, name), getattr(want, name), rtol=1e-9, atol=1e-10)


@examples(10)
@given(seeds)
def test_gradient_and_curvature_are_those_of_the_loss(seed: int) -> None:
    at = np.random.default_rng(seed).normal(1.0, 1.0, PLAIN.size)
    sums = calibration_sums(SCORES, Y, at.reshape(2, -1))
    numeric = approx_fprime(at, lambda x: mean_loss(x, SCORES, Y), 1e-6) * len(Y)
    np.testing.assert_allclose(sums.gradient.ravel(), numeric, atol=1e-3)
    hessian = approx_fprime(at, lambda x: mean_gradient(x, SCORES, Y), 1e-6) * len(Y)
    within = np.einsum("ukvk->uvk", hessian.reshape(2, N_CLASSES, 2, N_CLASSES))
    np.testing.assert_allclose(sums.curvature, within[[0, 0, 1], [0, 1, 1]], atol=1e-3)


@examples(15)
@given(partitions(Y))
def test_the_fit_is_the_same_over_any_partition(sites: list[Ints]) -> None:
    def ask(parameters: Floats) -> CalibrationSums:
        return total([calibration_sums(SCORES[rows], Y[rows], parameters) for rows in sites])

    np.testing.assert_allclose(fit(ask, N_CLASSES), calibrate(SCORES, Y)[0], atol=1e-9)


def most_probable(scores: Floats, y: Ints, common: float) -> Floats:
    """Maximise the posterior of all parameters with a general optimiser, by its definition."""

    def negative(x: Floats) -> float:
        scales, biases = x.reshape(2, -1)
        prior = norm.logpdf(scales, scales.mean(), 0.2 * common).sum()
        prior += norm.logpdf(scales.mean(), 1, 100 / np.sqrt(len(scales)))
        prior += norm.logpdf(biases, 0, 100).sum()
        logits = scales * scores + biases
        return float(-log_softmax(logits, axis=1)[np.arange(len(y)), y].sum() - prior)

    start = np.stack([np.full(N_CLASSES, common), np.zeros(N_CLASSES)])
    return np.asarray(minimize(negative, start.ravel(), tol=1e-9).x.reshape(2, -1))


@pytest.mark.parametrize("sharpness", [0.1, 0.3, 2.0, 5.0])
def test_the_fit_is_the_most_probable_and_takes_few_rounds(sharpness: float) -> None:
    scores, y = draw_scores(1000, sharpness)
    parameters, rounds = calibrate(scores, y)
    assert rounds <= 20
    best = most_probable(scores, y, parameters[0].mean())
    assert mean_loss(parameters, scores, y) == pytest.approx(mean_loss(best, scores, y), abs=1e-4)
    np.testing.assert_allclose(
        probabilities(scores, parameters), probabilities(scores, best), atol=0.02
    )


@pytest.mark.parametrize("factor", [0.2, 4.0])
def test_probabilities_do_not_depend_on_the_unit_of_the_scores(factor: float) -> None:
    want = probabilities(SCORES, calibrate(SCORES, Y)[0])
    other = factor * SCORES
    np.testing.assert_allclose(probabilities(other, calibrate(other, Y)[0]), want, atol=0.02)


def test_a_few_records_that_are_all_told_apart_have_no_scale_without_bound() -> None:
    """A record of another class that looks a little like theirs is not given to them for sure."""
    scores, y = draw_scores(1000, 1.0)
    rare = np.flatnonzero(y == N_CLASSES - 1)
    keep = np.setdiff1d(np.arange(len(y)), rare[6:])
    scores[:, -1] = np.where(y == N_CLASSES - 1, 3.0, -3.0)
    parameters, _ = calibrate(scores[keep], y[keep])
    others = parameters[0, :-1]
    assert others.min() > 0.5
    assert parameters[0, -1] < 2 * others.max()


def test_over_confident_scores_are_calibrated() -> None:
    scores, y = draw_scores(2000, 5.0)
    parameters, _ = calibrate(scores, y)
    fresh, labels = draw_scores(2000, 5.0, seed=1)

    def expected_calibration_error(parameters: Floats) -> float:
        p = probabilities(fresh, parameters)
        counts = Evaluation.measure(labels, p.argmax(axis=1), p)
        return Metrics.compute(counts).expected_calibration_error

    assert expected_calibration_error(PLAIN) > 0.1
    assert expected_calibration_error(parameters) < 0.03


@pytest.mark.filterwarnings("error")
def test_a_class_that_nobody_has_keeps_probability_zero() -> None:
    y = np.where(Y == 3, 5, Y)
    scores = SCORES.copy()
    scores[:, 3] = -1e9
    parameters, rounds = calibrate(scores, y)
    assert rounds <= 15
    assert np.isfinite(parameters).all()
    assert not probabilities(scores, parameters)[:, 3].any()
    others = np.delete(np.arange(N_CLASSES), 3)

    def without(x: Floats) -> CalibrationSums:
        return calibration_sums(scores[:, others], np.searchsorted(others, y), x)

    np.testing.assert_allclose(parameters[:, others], fit(without, N_CLASSES - 1), rtol=1e-3)


@pytest.mark.filterwarnings("error")
def test_no_records_leave_the_scores_as_they_are() -> None:
    parameters, rounds = calibrate(SCORES[:0], Y[:0])
    assert rounds == 2
    np.testing.assert_array_equal(parameters, PLAIN)


def test_decisions_weigh_probabilities_by_rarity() -> None:
    """No change of a single decision raises the balanced accuracy that is expected."""
    rng = np.random.default_rng(3)
    priors, scores = rng.dirichlet(np.ones(4)), rng.standard_normal((200, 4))
    calibration = rng.uniform(0.5, 2, (2, 4))
    p = probabilities(scores, calibration)
    np.testing.assert_array_equal(decisions(scores, calibration, priors), (p / priors).argmax(1))
    absent = np.where(np.arange(4) == 1, 0.0, priors)
    assert 1 not in decisions(scores, calibration, absent)
