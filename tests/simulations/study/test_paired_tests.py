"""What is claimed of two arms: tests, intervals and their corrections."""

from itertools import product

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from simulations.study.judging.judged import JudgedArm
from simulations.study.judging.paired_tests import compare_pairs, holm
from simulations.study.judging.predictions import Predictions
from tests.simulations.arms import make_arm


def _only(first: JudgedArm, second: JudgedArm, margin: float):
    (comparison,) = compare_pairs("one", [(first, second)], margin, seed=0)
    return comparison


def test_an_arm_is_the_mean_of_its_folds_with_an_interval_around_it():
    arm = make_arm("a", 0.8)
    value = arm.metrics["balanced_accuracy"]
    each = [balanced_accuracy_score(p.label, p.predicted) for p in arm.predictions.values()]
    assert value.folds == pytest.approx(each)
    assert value.mean == pytest.approx(np.mean(each))
    assert value.sd == pytest.approx(np.std(each, ddof=1))
    assert value.low < value.mean < value.high
    large = make_arm("a", 0.8, lesions=1200).metrics["balanced_accuracy"]
    # Ten times the lesions: about the root of ten narrower.
    assert (value.high - value.low) / (large.high - large.low) == pytest.approx(10**0.5, rel=0.3)


def test_a_large_difference_is_seen_and_no_difference_is_equal():
    same = _only(make_arm("a", 0.8), make_arm("b", 0.8), 0.05)
    assert (same.difference, same.p) == (0, 1)
    assert same.equivalent
    assert not same.different
    assert same.verdict == "equal within 5 points"
    worse = _only(make_arm("a", 0.6), make_arm("b", 0.9), 0.05)
    assert worse.interval[0] < worse.difference < worse.interval[1] < 0
    assert worse.different
    assert not worse.equivalent
    assert worse.verdict == "a pooled is worse"
    back = _only(make_arm("b", 0.9), make_arm("a", 0.6), 0.05)
    assert back.difference == pytest.approx(-worse.difference)
    assert back.verdict == "b pooled is better"


def test_equal_and_different_are_two_questions():
    """A small difference between large arms is both; one between small arms is neither."""
    both = _only(make_arm("a", 0.88, lesions=3000), make_arm("b", 0.9, lesions=3000), 0.05)
    assert both.equivalent
    assert both.different
    assert both.verdict == "equal within 5 points, though a pooled is worse"
    neither = _only(make_arm("a", 0.8, lesions=24), make_arm("b", 0.84, lesions=24), 0.01)
    assert neither.verdict == "undecided: neither different nor equal within 1 point"
    low, high = neither.inner
    assert neither.interval[0] <= low < high <= neither.interval[1]


def test_the_paired_test_is_that_of_all_signs():
    """Against the difference under each of the 2^n ways to swap the arms of a lesion."""
    first, second = make_arm("a", 0.3, lesions=6, folds=1), make_arm("b", 0.9, lesions=6, folds=1)
    one, two = first.predictions[0], second.predictions[0]
    lesions = np.unique(one.lesion)
    observed = abs(_balanced(one, one.predicted) - _balanced(two, two.predicted))
    swapped = []
    for signs in product([False, True], repeat=len(lesions)):
        swap = np.array(signs)[np.searchsorted(lesions, one.lesion)]
        a = np.where(swap, two.predicted, one.predicted)
        b = np.where(swap, one.predicted, two.predicted)
        swapped.append(abs(_balanced(one, a) - _balanced(one, b)))
    expected = np.mean(np.array(swapped) >= observed - 1e-12)
    assert 0 < expected < 1
    assert _only(first, second, 0.05).p == pytest.approx(expected)


def _balanced(found: Predictions, predicted):
    return balanced_accuracy_score(found.label, predicted)


def test_arms_are_compared_over_the_folds_that_both_have():
    whole, part = make_arm("a", 0.8), make_arm("b", 0.7, folds=1)
    comparison = _only(whole, part, 0.05)
    expected = whole.metrics["balanced_accuracy"].folds[0] - part.metrics["balanced_accuracy"].mean
    assert comparison.folds == 1
    assert comparison.difference == pytest.approx(expected)
    none = JudgedArm(part.arm, part.task, {}, {}, {}, {}, {0: "failed"}, [1])
    assert compare_pairs("one", [(whole, none)], 0.05, seed=0) == []
    assert none.metrics == {}


def test_holm_is_the_textbooks():
    """Holm's steps by hand: each times the hypotheses left, never below the one before."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.5]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


def test_more_comparisons_make_a_claim_harder():
    pairs = [(make_arm("a", 0.7), make_arm("b", 0.8))]
    alone = compare_pairs("one", pairs, 0.05, seed=0)[0]
    among = compare_pairs("many", pairs * 5, 0.05, seed=0)[0]
    assert among.p == alone.p
    assert among.p_adjusted == pytest.approx(min(1, 5 * alone.p))
