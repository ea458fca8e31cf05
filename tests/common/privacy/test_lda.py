"""Moments add up, a unit adds no more to them than their norm, and they make a discriminant."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from common.privacy.lda import discriminant, moments, moments_size
from common.privacy.linear import MOMENTS_NORM, Centre, Units
from common.svm.objective import with_intercept

N, D, CLASSES = 400, 5, 3
RNG = np.random.default_rng(8)
Y = np.arange(N) % CLASSES
X = RNG.standard_normal((N, D)) * 0.1 + np.eye(CLASSES, D)[Y] * 0.2
AS_THEY_ARE = Centre(np.zeros(D), np.array(1.0))


@given(
    one=st.integers(0, 9),
    shift=st.floats(-1e3, 1e3),
    scale=st.floats(0, 1e6),
    people=st.integers(1, 10),
)
def test_a_unit_adds_no_more_than_the_norm_whatever_is_asked(one, shift, scale, people):
    units = Units.apart(X[:10], Y[:10])._replace(unit=np.arange(10) % people)
    others = units.of(np.arange(people) != one % people)
    centre = Centre(np.full(D, shift), np.array(scale))
    change = moments(units, centre, CLASSES) - moments(others, centre, CLASSES)
    assert np.linalg.norm(change) <= MOMENTS_NORM * (1 + 1e-9)


@given(cut=st.integers(0, N))
def test_parts_add_up_to_the_whole(cut):
    centre = Centre(X.mean(axis=0), np.array(3.0))
    parts = [Units.apart(X[p], Y[p]) for p in (slice(cut), slice(cut, None))]
    whole = moments(Units.apart(X, Y), centre, CLASSES)
    assert whole.shape == (moments_size(D, CLASSES),)
    added = moments(parts[0], centre, CLASSES) + moments(parts[1], centre, CLASSES)
    np.testing.assert_allclose(added, whole, atol=1e-9)


def test_without_noise_it_decides_as_scikit_learn_does():
    """Equally frequent classes: there the common and the within-class scatter decide alike."""
    values = moments(Units.apart(X, Y), AS_THEY_ARE, CLASSES)
    weights = discriminant(values, np.bincount(Y).astype(float))
    reference = LinearDiscriminantAnalysis(priors=np.full(CLASSES, 1 / CLASSES)).fit(X, Y)
    agree = (with_intercept(X) @ weights.T).argmax(axis=1) == reference.predict(X)
    assert agree.mean() > 0.98


def test_much_noise_makes_scores_small_not_wild():
    clear = moments(Units.apart(X, Y), AS_THEY_ARE, CLASSES)
    counts = np.bincount(Y).astype(float)
    noise = RNG.standard_normal(clear.shape)
    sizes = [np.abs(discriminant(clear + scale * noise, counts)).max() for scale in (0, 10, 1e4)]
    assert sizes[0] > sizes[1] > sizes[2]
