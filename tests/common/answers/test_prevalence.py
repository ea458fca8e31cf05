"""Frequencies of diagnoses: Bayes' rule, recovery, scipy's maximum, and what cannot be known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import softmax

from common.answers.prevalence import (
    DISAGREEMENT,
    disagreement,
    estimate,
    for_frequencies,
    parse_prevalence,
)
from common.errors import ConfigError, DataError
from common.statistics.confusion import confusion_matrix
from common.task import HAM10000
from tests.examples import examples

K = len(HAM10000.codes)
BASE = np.array([0.04, 0.05, 0.11, 0.02, 0.11, 0.65, 0.02])
ELSEWHERE = np.array([0.15, 0.10, 0.2, 0.02, 0.23, 0.28, 0.02])
GIVEN = "akiec=0.04,bcc=0.05,bkl=0.11,df=0.02,mel=0.11,nv=0.65,vasc=0.02"


def draw(
    n: int, seed: int, frequencies: NDArray[np.float64], signal: float = 2.0
) -> NDArray[np.float64]:
    """Return exact probabilities at ``BASE`` of images whose logits are normal by class."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(K, n, p=frequencies)
    seen = rng.normal(size=(n, K)) + signal * (labels[:, None] == np.arange(K))
    return softmax(signal * seen + np.log(BASE), axis=1)


def test_estimate_is_the_maximum_that_scipy_finds() -> None:
    p = draw(400, 0, ELSEWHERE)

    def loss(logits: NDArray[np.float64]) -> float:
        return float(-np.log((p / BASE) @ softmax(logits)).mean())

    want = softmax(minimize(loss, np.zeros(K), tol=1e-12).x)
    np.testing.assert_allclose(estimate(p, BASE).frequencies, want, atol=1e-4)


def test_shift_is_recovered_and_95_percent_of_the_intervals_hold_the_truth() -> None:
    results = [estimate(draw(500, seed, ELSEWHERE), BASE) for seed in range(100)]
    found = np.mean([r.frequencies for r in results], axis=0)
    np.testing.assert_allclose(found, ELSEWHERE, atol=0.01)
    inside = np.mean([(r.low <= ELSEWHERE) & (r.high >= ELSEWHERE) for r in results])
    assert 0.92 < inside < 0.98
    assert all(r.identifiable for r in results)


def test_probabilities_for_the_estimate_are_calibrated_to_it() -> None:
    p = draw(2000, 1, ELSEWHERE)
    found = estimate(p, BASE).frequencies
    moved = for_frequencies(p, BASE, found)
    np.testing.assert_allclose(moved.mean(axis=0), found, atol=1e-5)
    assert np.abs(p.mean(axis=0) - ELSEWHERE).max() > 0.1


def test_bayes_rule_by_hand() -> None:
    base, elsewhere = np.array([0.5, 0.5]), np.array([0.2, 0.8])
    got = for_frequencies(np.array([[0.8, 0.2], [0.0, 1.0]]), base, elsewhere)
    np.testing.assert_allclose(got, [[0.5, 0.5], [0.0, 1.0]])


@examples(50)
@given(
    shares=st.lists(st.floats(0, 1), min_size=K, max_size=K).filter(lambda s: sum(s) > 0.01),
    seed=st.integers(0, 2**32 - 1),
)
def test_moving_there_and_back_changes_nothing(shares: list[float], seed: int) -> None:
    p, elsewhere = draw(20, seed, BASE), np.array(shares) / sum(shares)
    moved = for_frequencies(p, BASE, elsewhere)
    np.testing.assert_allclose(moved.sum(axis=1), 1)
    assert (moved[:, elsewhere == 0] == 0).all()
    np.testing.assert_allclose(for_frequencies(p, BASE, BASE), p)
    if elsewhere.min() > 1e-6:
        np.testing.assert_allclose(for_frequencies(moved, elsewhere, BASE), p, rtol=1e-6)


def test_what_the_model_excludes_has_the_frequencies_that_are_left() -> None:
    p = np.array([[1.0, 0.0, 0.0]])
    elsewhere = np.array([0.0, 0.5, 0.5])
    got = for_frequencies(p, np.array([0.5, 0.5, 0.0]), elsewhere)
    np.testing.assert_array_equal(got, [elsewhere])


def test_classes_that_look_alike_are_named_as_not_identifiable() -> None:
    p = draw(2000, 2, ELSEWHERE)
    p[:, [1, 3]] = p[:, [1, 3]].sum(axis=1, keepdims=True) * BASE[[1, 3]] / BASE[[1, 3]].sum()
    found = estimate(p, BASE)
    assert not found.identifiable
    assert set(found.confused) == {1, 3}
    assert found.high[1] - found.low[1] > 0.5


@pytest.mark.parametrize("p", [np.tile(BASE, (500, 1)), draw(500, 3, BASE, signal=0.2)])
def test_a_model_that_hardly_knows_identifies_nothing(p: NDArray[np.float64]) -> None:
    assert not estimate(p, BASE).identifiable


def test_two_estimates_agree_under_label_shift_and_not_where_classes_look_otherwise() -> None:
    rng = np.random.default_rng(6)
    labels = rng.choice(K, 4000, p=BASE)
    one_hot = np.eye(K)[labels]
    p = softmax(2.0 * (rng.normal(size=(4000, K)) + 2.0 * one_hot) + np.log(BASE), axis=1)
    confusion = confusion_matrix(labels, p.argmax(axis=1), K)

    def compared(p: NDArray[np.float64]) -> float:
        predicted = np.bincount(p.argmax(axis=1), minlength=K) / len(p)
        return disagreement(estimate(p, BASE), predicted, confusion)

    assert compared(draw(1000, 7, ELSEWHERE)) < DISAGREEMENT / 2
    # Elsewhere, three in four images show nothing of their class.
    blurred = draw(1000, 8, ELSEWHERE)
    blurred[:750] = softmax(2.0 * rng.normal(size=(750, K)) + np.log(BASE), axis=1)
    assert compared(blurred) > DISAGREEMENT
    assert compared(blurred) <= 1
    missing = confusion.copy()
    missing[3] = 0
    predicted = np.bincount(p.argmax(axis=1), minlength=K) / len(p)
    assert disagreement(estimate(p, BASE), predicted, missing) < DISAGREEMENT / 2


def test_few_images_identify_nothing_and_none_are_refused() -> None:
    assert not estimate(draw(5, 4, BASE), BASE).identifiable
    with pytest.raises(DataError, match="no images"):
        estimate(np.zeros((0, K)), BASE)


def test_a_class_that_no_site_has_is_not_estimated() -> None:
    base = np.append(BASE[:-1] / BASE[:-1].sum(), 0.0)
    p = draw(500, 5, base)
    p[:, -1] = 0
    found = estimate(p / p.sum(axis=1, keepdims=True), base)
    assert found.frequencies[-1] == 0
    assert found.identifiable


def test_a_prevalence_is_read_and_adds_up() -> None:
    np.testing.assert_allclose(parse_prevalence(GIVEN, HAM10000), BASE)
    rounded = parse_prevalence(GIVEN.replace("0.65", "0.655").replace(",", " , "), HAM10000)
    assert rounded.sum() == pytest.approx(1, abs=1e-15)
    assert (
        parse_prevalence(GIVEN.replace("df=0.02", "df=0").replace("0.65", "0.67"), HAM10000)[3] == 0
    )


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("nv=1", "akiec, bcc, bkl, df, mel, vasc missing"),
        (GIVEN + ",nv=0", "'nv' is named twice"),
        (GIVEN.replace("mel", "mle"), "'mle' is no diagnosis; did you mean 'mel'"),
        (GIVEN.replace("0.65", "0.60"), "add up to 0.95"),
        (GIVEN.replace("0.65", "-0.65"), "'nv' has '-0.65'"),
        (GIVEN.replace("0.65", "nan"), "'nv' has 'nan'"),
        (GIVEN.replace("0.65", "65"), "'nv' has '65'"),
        (GIVEN.replace("=0.65", ""), "'nv' has ''"),
        ("", "'' is no diagnosis"),
        ("\x1b[1m=1", r"'\\x1b\[1m' is no diagnosis"),
    ],
)
def test_a_prevalence_that_cannot_be_is_refused_in_one_line(text: str, error: str) -> None:
    with pytest.raises(ConfigError, match=error) as raised:
        parse_prevalence(text, HAM10000)
    assert "\n" not in str(raised.value)
