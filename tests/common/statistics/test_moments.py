"""Moments add over any partition and give what scikit-learn gives on the pooled records."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import RidgeClassifier
from sklearn.preprocessing import StandardScaler

from common.statistics.moments import Moments, lda, ridge, standard_deviation
from common.svm.feature_map import FeatureMap
from tests.examples import examples
from tests.records import N_CLASSES, Floats, Ints, draw_records, partitions, total

X, Y = draw_records(400, 12)
X += 3.0  # network features are not centred either
WEIGHTS = np.random.default_rng(1).uniform(0.2, 2.0, len(Y))


def measure(rows: Ints | slice = np.s_[:], weights: Floats = WEIGHTS) -> Moments:
    return Moments.measure(X[rows], Y[rows], weights[rows], N_CLASSES)


def unweighted(rows: Ints) -> Moments:
    return measure(rows, np.ones(len(Y)))


def assert_close(got: Moments, want: Moments, tolerance: float = 1e-12) -> None:
    for name in want.to_record():
        array = getattr(want, name)
        scale = np.abs(array).max()
        np.testing.assert_allclose(getattr(got, name), array, atol=tolerance * scale, err_msg=name)


@given(partitions(Y))
def test_any_partition_adds_up_to_the_pool(sites: list[Ints]) -> None:
    assert_close(total([measure(rows) for rows in sites]), measure())


def test_long_tables_are_read_in_pieces() -> None:
    rows = np.random.default_rng(0).integers(len(Y), size=10_000)
    x = X[rows].astype(np.float32)
    got = Moments.measure(x, Y[rows], WEIGHTS[rows], N_CLASSES)
    wide = x.astype(np.float64)
    gram = (wide * WEIGHTS[rows, None]).T @ wide
    np.testing.assert_allclose(got.gram, gram[np.triu_indices(12)], rtol=1e-12)
    np.testing.assert_allclose(got.class_sum.sum(axis=0), WEIGHTS[rows] @ wide, rtol=1e-12)


@given(partitions(Y))
def test_standardisation_is_scikit_learns(sites: list[Ints]) -> None:
    moments = total([measure(rows) for rows in sites])
    scaler = StandardScaler().fit(X, sample_weight=WEIGHTS)
    np.testing.assert_allclose(moments.mean, scaler.mean_, rtol=1e-12)
    np.testing.assert_allclose(standard_deviation(moments), scaler.scale_, rtol=1e-12)


@pytest.mark.parametrize("constant", [0.0, 0.1, 123.456])
@pytest.mark.parametrize("n", [1, 40_000])
def test_a_constant_feature_keeps_its_scale(constant: float, n: int) -> None:
    moments = Moments.measure(np.full((n, 1), constant), np.zeros(n, int), np.full(n, 1 / 3), 1)
    assert standard_deviation(moments) == 1.0


@examples(30)
@given(partitions(Y), st.integers(1, 15))
def test_principal_components_are_scikit_learns(sites: list[Ints], components: int) -> None:
    feature_map = FeatureMap.principal(total([unweighted(rows) for rows in sites]), components)
    pca = PCA(min(components, 12), svd_solver="full")
    expected = pca.fit_transform(StandardScaler().fit_transform(X))
    Z = feature_map.apply(X)
    assert Z.shape == expected.shape
    np.testing.assert_allclose(np.abs(Z), np.abs(expected), atol=1e-10)


@given(st.integers(1, 12))
def test_mapped_moments_are_those_of_mapped_records(components: int) -> None:
    moments = measure()
    feature_map = FeatureMap.principal(moments, components)
    got = moments.mapped(feature_map.mean, feature_map.matrix)
    assert_close(got, Moments.measure(feature_map.apply(X), Y, WEIGHTS, N_CLASSES))


def pooled_heads(rows: Ints) -> Any:
    """Fit scikit-learn's one-shot heads, as one row for each class that is present."""
    reference = RidgeClassifier(3.0).fit(X[rows], Y[rows])
    yield ridge, 3.0, reference
    yield lda, None, LinearDiscriminantAnalysis(solver="lsqr").fit(X[rows], Y[rows])


@pytest.mark.filterwarnings("error")
@examples(30)
@given(partitions(Y), st.sets(st.integers(0, N_CLASSES - 1), max_size=4))
def test_one_shot_heads_are_scikit_learns(sites: list[Ints], missing: set[int]) -> None:
    present = [k for k in range(N_CLASSES) if k not in missing]
    moments = total([unweighted(rows[np.isin(Y[rows], present)]) for rows in sites])
    rows = np.flatnonzero(np.isin(Y, present))
    for head, alpha, reference in pooled_heads(rows):
        coefficients, intercepts = head(moments) if alpha is None else head(moments, alpha)
        close(coefficients[present], reference.coef_)
        close(intercepts[present], reference.intercept_)
        close(X @ coefficients[present].T + intercepts[present], reference.decision_function(X))
        assert not coefficients[sorted(missing)].any()
        assert np.isfinite(intercepts).all()


def close(got: Floats, want: NDArray[Any]) -> None:
    np.testing.assert_allclose(got, want, atol=1e-8 * max(1.0, np.abs(want).max()))
