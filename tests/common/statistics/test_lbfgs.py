"""The lockstep solver: it reaches the tolerance, leaves solved problems alone and never climbs."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit

from common.statistics.lbfgs import Evaluate, Solution, minimise
from tests.examples import examples
from tests.records import Floats

TOLERANCE = 1e-8
seeds = st.integers(0, 2**32 - 1)


def plain(gradients: Floats) -> Floats:
    return gradients


def quadratics(
    seed: int, n_problems: int, n: int, log_condition: float
) -> tuple[Evaluate, Floats, Callable[..., Floats]]:
    """Return objectives 1/2 (x - x*)' A (x - x*), their minimisers x* and Newton steps."""
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.standard_normal((n_problems, n, n)))[0]
    eigenvalues = np.logspace(-log_condition / 2, log_condition / 2, n)
    best = rng.standard_normal((n_problems, n))

    def apply(x: Floats, powers: Floats) -> Floats:
        return np.asarray(np.einsum("pij,j,pkj,pk->pi", basis, powers, basis, x, optimize=True))

    def evaluate(x: Floats) -> tuple[Floats, Floats]:
        gradient = apply(x - best, eigenvalues)
        return 0.5 * np.einsum("pi,pi->p", x - best, gradient), gradient

    return evaluate, best, lambda g, factors=1.0: apply(g, factors / eigenvalues)


def logistic(seed: int, n_problems: int, n: int) -> Evaluate:
    """Return regularised logistic losses; their curvature changes along the way."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((60, n)) * 3
    targets = rng.choice([-1.0, 1.0], (n_problems, 60))

    def evaluate(w: Floats) -> tuple[Floats, Floats]:
        margins = targets * (w @ X.T)
        value = 0.05 * (w**2).sum(axis=1) + np.logaddexp(0, -margins).sum(axis=1)
        return value, 0.1 * w - (targets * expit(-margins)) @ X

    return evaluate


def solve(evaluate: Evaluate, start: Floats, rounds: int = 300) -> Solution:
    return minimise(evaluate, start, plain, TOLERANCE, rounds)


@examples(40)
@given(seeds, st.integers(1, 5), st.integers(1, 20), st.floats(0, 3))
def test_quadratics_in_lockstep_reach_their_minimisers(
    seed: int, n_problems: int, n: int, log_condition: float
) -> None:
    evaluate, best, _ = quadratics(seed, n_problems, n, log_condition)
    solution = solve(evaluate, np.zeros((n_problems, n)))
    assert solution.gradient_norm.max() <= TOLERANCE
    np.testing.assert_allclose(solution.x, best, atol=1e-6)


@examples(40)
@given(seeds, st.integers(1, 5), st.integers(1, 10))
def test_logistic_losses_in_lockstep_reach_their_minimisers(
    seed: int, n_problems: int, n: int
) -> None:
    evaluate = logistic(seed, n_problems, n)
    solution = solve(evaluate, np.zeros((n_problems, n)))
    assert solution.gradient_norm.max() <= TOLERANCE
    value, gradient = evaluate(solution.x)
    np.testing.assert_array_equal(solution.value, value)
    np.testing.assert_array_equal(solution.gradient_norm, np.linalg.norm(gradient, axis=1))


@examples(8)
@given(seeds, st.integers(1, 30))
def test_no_objective_ends_higher_after_more_rounds(seed: int, n: int) -> None:
    evaluate, start = logistic(seed, 3, n), np.full((3, n), 10.0)
    values = [solve(evaluate, start, rounds).value for rounds in range(1, 30)]
    rises = np.diff(values, axis=0) / np.abs(values[:-1])
    assert rises.max() <= 1e-12


def test_a_solved_problem_stays_where_it_is() -> None:
    evaluate, best, _ = quadratics(0, 3, 10, 2.0)
    start = np.zeros((3, 10))
    start[1] = best[1] + 1e-10  # within the tolerance
    solution = solve(evaluate, start)
    np.testing.assert_array_equal(solution.x[1], start[1])
    assert solution.gradient_norm.max() <= TOLERANCE
    assert solve(evaluate, best).rounds == 1


@pytest.mark.parametrize("rounds", [1, 2, 7])
def test_no_more_rounds_than_allowed(rounds: int) -> None:
    evaluate, _, _ = quadratics(0, 3, 10, 4.0)
    asked: list[Floats] = []

    def counted(x: Floats) -> tuple[Floats, Floats]:
        asked.append(x)
        return evaluate(x)

    solution = solve(counted, np.zeros((3, 10)), rounds)
    assert solution.rounds == len(asked) == rounds
    assert solution.gradient_norm.max() > TOLERANCE


def test_a_good_preconditioner_makes_up_for_a_bad_condition() -> None:
    evaluate, best, newton = quadratics(0, 3, 30, 8.0)
    wrong = 2.0 ** np.random.default_rng(0).uniform(-1, 1, 30)
    for factors, rounds in ((np.ones(30), 3), (wrong, 40)):
        precondition = partial(newton, factors=factors)
        solution = minimise(evaluate, np.zeros((3, 30)), precondition, TOLERANCE, rounds)
        assert solution.gradient_norm.max() <= TOLERANCE
        np.testing.assert_allclose(solution.x, best, atol=1e-4)


@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_steps_of_the_wrong_length_are_mended(factor: float) -> None:
    evaluate = logistic(0, 3, 10)
    solution = minimise(evaluate, np.ones((3, 10)), lambda g: factor * g, TOLERANCE, 200)
    assert solution.gradient_norm.max() <= TOLERANCE


def test_a_tolerance_below_rounding_ends_at_the_minimum() -> None:
    evaluate, start = logistic(0, 3, 10), np.ones((3, 10))
    solution = minimise(evaluate, start, plain, 0.0, 200)
    np.testing.assert_allclose(solution.x, solve(evaluate, start).x, atol=1e-7)
