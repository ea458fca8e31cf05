"""The SVM: its sums add over any partition, and its solution is that of scikit-learn and Newton."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import approx_fprime
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.svm import LinearSVC
from sklearn.utils.class_weight import compute_class_weight

from common.statistics.lbfgs import Solution
from common.statistics.moments import Moments
from common.svm import objective as svm
from common.svm.feature_map import FeatureMap, FourierMap
from tests.examples import examples
from tests.records import N_CLASSES, Floats, Ints, draw_records, partitions, total

X, Y = draw_records(600, 30)
X1 = svm.with_intercept(X)
MOMENTS = Moments.measure(X, Y, np.ones(len(Y)), N_CLASSES)
UNIFORM = np.ones(N_CLASSES)
BALANCED = svm.balanced_weights(MOMENTS.class_weight)
SHAPE = (1, N_CLASSES, X1.shape[1])
Ask = Callable[[Floats], svm.HingeSums]


def ask(rows: Ints | slice = np.s_[:], class_weights: Floats = BALANCED) -> Ask:
    """Return what a site with these records answers."""

    def answer(weights: Floats) -> svm.HingeSums:
        sample_weight = np.tile(class_weights[Y[rows]], (len(weights), 1))
        return svm.hinge_sums(X1[rows], Y[rows], sample_weight, weights)[0]

    return answer


def ask_all(sites: list[Ints]) -> Ask:
    return lambda weights: total([ask(rows)(weights) for rows in sites])


def fit(
    ask: Ask, c: float, class_weights: Floats = BALANCED, moments: Moments = MOMENTS
) -> Solution:
    preconditioner = svm.Preconditioner(moments, class_weights)
    return svm.solve(ask, preconditioner.start(c)[None], preconditioner, c, 1e-10, 200)


def newton(c: float, class_weights: Floats = BALANCED) -> Floats:
    """Solve with the pooled Hessians of the active records: the oracle."""
    W = np.zeros(SHAPE[1:])
    for k in range(N_CLASSES):
        t = 2.0 * np.equal(Y, k) - 1.0
        for _ in range(50):
            slack = np.maximum(1 - t * (X1 @ W[k]), 0)
            pull = class_weights[Y] * (slack > 0)
            hessian = np.eye(len(W[k])) + 2 * c * (X1 * pull[:, None]).T @ X1
            gradient = W[k] - 2 * c * X1.T @ (pull * t * slack)
            W[k] -= np.linalg.solve(hessian, gradient)
    return W


@examples(10)
@given(st.integers(0, 2**32 - 1))
def test_the_gradient_is_that_of_the_loss(seed: int) -> None:
    weights = np.random.default_rng(seed).standard_normal((2, *SHAPE[1:])) * 0.3
    rows = np.arange(50)
    numeric = approx_fprime(
        weights.ravel(), lambda w: ask(rows)(w.reshape(weights.shape)).loss.sum(), 1e-6
    )
    got = ask(rows)(weights).gradient.ravel()
    np.testing.assert_allclose(got, numeric, atol=1e-5 * np.abs(got).max())


@given(partitions(Y), st.integers(0, 2**32 - 1))
def test_sums_add_over_any_partition(sites: list[Ints], seed: int) -> None:
    weights = np.random.default_rng(seed).standard_normal((2, *SHAPE[1:]))
    got, want = ask_all(sites)(weights), ask()(weights)
    np.testing.assert_allclose(got.loss, want.loss, rtol=1e-12)
    scale = np.abs(want.gradient).max()
    np.testing.assert_allclose(got.gradient, want.gradient, atol=1e-12 * scale)


@examples(25)
@given(partitions(Y), st.floats(-5, -2))
def test_the_solution_is_the_same_over_any_partition(sites: list[Ints], log_c: float) -> None:
    c = 10**log_c
    federated, pooled = fit(ask_all(sites), c), fit(ask(), c)
    assert abs(federated.rounds - pooled.rounds) <= 1
    np.testing.assert_allclose(X1 @ federated.x.T, X1 @ pooled.x.T, atol=1e-7)


@pytest.mark.parametrize("c", [1e-5, 1e-4, 1e-3, 1e-2])
@pytest.mark.parametrize("class_weights", [BALANCED, UNIFORM], ids=["balanced", "uniform"])
def test_the_solution_is_that_of_scikit_learn_and_of_newton(
    c: float, class_weights: Floats
) -> None:
    solution = fit(ask(class_weights=class_weights), c, class_weights)
    assert solution.gradient_norm.max() <= 1e-10
    values = X1 @ solution.x.T
    reference = LinearSVC(dual=False, tol=1e-10, max_iter=100_000, C=c)
    expected = reference.fit(X, Y, sample_weight=class_weights[Y]).decision_function(X)
    np.testing.assert_allclose(values, expected, atol=1e-6)
    np.testing.assert_array_equal(values.argmax(axis=1), expected.argmax(axis=1))
    np.testing.assert_allclose(values, X1 @ newton(c, class_weights).T, atol=1e-9)


def test_several_fits_at_once_are_those_done_one_by_one() -> None:
    fold = np.arange(len(Y)) % 3
    kept = (fold != np.arange(3)[:, None]).astype(float)
    preconditioner = svm.Preconditioner(MOMENTS, BALANCED)
    start = preconditioner.start(1e-3)[None]

    def solve(kept: Floats) -> Floats:
        def answer(weights: Floats) -> svm.HingeSums:
            return svm.hinge_sums(X1, Y, BALANCED[Y] * kept, weights)[0]

        starts = np.repeat(start, len(kept), axis=0)
        return svm.solve(answer, starts, preconditioner, 1e-3, 1e-10, 200).x.reshape(starts.shape)

    together = solve(kept)
    for k in range(3):
        np.testing.assert_allclose(together[k], solve(kept[k : k + 1])[0], atol=1e-9)
        np.testing.assert_allclose(together[k], fit(ask(fold != k), 1e-3).x, atol=1e-9)


@given(st.lists(st.integers(0, 9), min_size=N_CLASSES, max_size=N_CLASSES).filter(any))
def test_balanced_weights_are_scikit_learns(counts: list[int]) -> None:
    y = np.repeat(np.arange(N_CLASSES), counts)
    weights = svm.balanced_weights(np.bincount(y, minlength=N_CLASSES).astype(float))
    expected = compute_class_weight("balanced", classes=np.unique(y), y=y)
    np.testing.assert_allclose(weights[np.unique(y)], expected, rtol=1e-12)
    assert weights.sum() == pytest.approx(expected.sum())


@pytest.mark.parametrize("class_weights", [BALANCED, 3 * UNIFORM], ids=["balanced", "uniform"])
def test_the_preconditioner_is_the_hessian_of_small_weights(class_weights: Floats) -> None:
    preconditioner = svm.Preconditioner(MOMENTS, class_weights)
    c, zero = 1e-3, np.zeros(SHAPE)
    hessian = np.eye(SHAPE[2]) + 2 * c * (X1 * class_weights[Y][:, None]).T @ X1
    inverse = preconditioner.solve(np.eye(SHAPE[2]), c)
    # Classes share one scatter in it: exact without class weights, else close.
    spread = np.linalg.eigvals(inverse @ hessian).real
    limit = 0.5 if class_weights is BALANCED else 1e-9
    assert np.abs(spread - 1).max() < limit

    def objective(weights: Floats) -> Floats:
        sums = ask(class_weights=class_weights)(weights)
        return np.asarray(0.5 * (weights**2).sum(axis=2) + c * sums.loss)

    best = fit(ask(class_weights=class_weights), c, class_weights).value
    start = preconditioner.start(c)[None]
    assert (objective(start) - best < 0.2 * (objective(zero) - best)).all()


@pytest.mark.filterwarnings("error")
def test_a_class_that_nobody_has_is_never_pulled_towards() -> None:
    rows = np.flatnonzero(Y != 3)
    moments = Moments.measure(X[rows], Y[rows], np.ones(len(rows)), N_CLASSES)
    weights = svm.balanced_weights(moments.class_weight)
    solution = fit(ask(rows, weights), 1e-3, weights, moments)
    assert solution.gradient_norm.max() <= 1e-10
    assert (X1 @ solution.x[3]).max() < 0


def test_fourier_features_approximate_the_kernel_and_are_public() -> None:
    width, size = 4.0, 4096
    expected = rbf_kernel(X[:100], gamma=1 / (2 * width**2))
    errors = []
    for seed in (0, 1):
        Z = FourierMap(size, width, seed).apply(X[:100])
        np.testing.assert_array_equal(Z, FourierMap(size, width, seed).apply(X[:100]))
        assert np.abs(Z).max() <= np.sqrt(2)
        errors.append(Z @ Z.T / size - expected)
    # An entry is a mean of `size` draws whose standard deviation is at most 1.23.
    assert all(np.sqrt(np.mean(error**2)) < 1.23 / np.sqrt(size) for error in errors)
    assert not np.array_equal(*errors)


def test_a_feature_map_survives_the_wire() -> None:
    for fourier in (None, FourierMap(16, 0.1, 2**40 + 1)):
        sent = FeatureMap.principal(MOMENTS, 5)
        sent = FeatureMap(sent.mean, sent.matrix, fourier)
        got = FeatureMap.from_record({**sent.to_record(), "weights": np.zeros(1)})
        assert got.digest == sent.digest
        assert got.n_outputs == (16 if fourier else 5)
        np.testing.assert_array_equal(got.apply(X), sent.apply(X))
    assert FeatureMap(sent.mean + 1e-9, sent.matrix).digest != sent.digest
