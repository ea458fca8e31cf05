"""Metrics of many confusion matrices at once are those of each by itself, and scikit-learn's."""

import numpy as np
import pytest
from sklearn import metrics as sk

from common.statistics.confusion import ConfusionMetrics, balanced_shares, confusion_matrix

K = 5
RNG = np.random.default_rng(0)


def _records(n: int, classes: int = K) -> tuple[np.ndarray, np.ndarray]:
    labels = np.append(np.arange(classes), RNG.integers(0, classes, n - classes))
    return labels, np.where(RNG.random(n) < 0.6, labels, RNG.integers(0, K, n))


@pytest.mark.parametrize("kind", [np.int64, np.float64])
def test_a_stack_of_matrices_gives_what_each_gives_alone(kind: type) -> None:
    stack = RNG.integers(0, 9, (2, 3, K, K)).astype(kind)
    stack[0, 1, 2] = 0  # a class without records
    together = ConfusionMetrics.compute(stack)
    for place in np.ndindex(2, 3):
        alone = ConfusionMetrics.compute(stack[place])
        for name, value in alone._asdict().items():
            np.testing.assert_array_equal(getattr(together, name)[place], value, err_msg=name)


def test_means_leave_out_a_class_without_records() -> None:
    labels, predicted = _records(200, classes=K - 1)
    found = ConfusionMetrics.compute(confusion_matrix(labels, predicted, K))
    assert np.isnan(found.sensitivity[-1])
    expected = sk.recall_score(labels, predicted, labels=range(K - 1), average="macro")
    assert found.balanced_accuracy == pytest.approx(expected)
    assert found.accuracy == pytest.approx(sk.accuracy_score(labels, predicted))


def test_shares_of_what_is_right_add_up_to_balanced_accuracy() -> None:
    labels, predicted = _records(200)
    shares = balanced_shares(labels)
    assert shares.sum() == pytest.approx(1)
    expected = sk.balanced_accuracy_score(labels, predicted)
    assert shares[labels == predicted].sum() == pytest.approx(expected)
