"""Calibration from sums is the maximum likelihood that pooled scores would have given."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import approx_fprime, minimize

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


@pytest.mark.parametrize("sharpness", [0.02, 0.3, 2.0])
def test_the_fit_is_the_most_likely_and_takes_few_rounds(sharpness: float) -> None:
    scores, y = draw_scores(3000, sharpness)
    parameters, rounds = calibrate(scores, y)
    assert rounds <= 15
    best = minimize(mean_loss, PLAIN.ravel(), (scores, y), jac=mean_gradient, tol=1e-9)
    assert mean_loss(parameters, scores, y) == pytest.approx(best.fun, abs=1e-5)
    np.testing.assert_allclose(
        probabilities(scores, parameters), probabilities(scores, best.x.reshape(2, -1)), atol=0.02
    )


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

    np.testing.assert_allclose(parameters[:, others], fit(without, N_CLASSES - 1), atol=1e-9)


@pytest.mark.filterwarnings("error")
def test_no_records_leave_the_scores_as_they_are() -> None:
    parameters, rounds = calibrate(SCORES[:0], Y[:0])
    assert rounds == 1
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
