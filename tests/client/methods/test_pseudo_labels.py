"""Records of no fold are in every fit of an SVM, and nothing is judged on them."""

import numpy as np

from client.methods.svm import Prepared, _unseen_scores, hinge
from common.svm.objective import hinge_sums, with_intercept
from tests.records import N_CLASSES, draw_records

FOLDS = 3


def prepared(fold: np.ndarray) -> Prepared:
    """Take one view of each image as its lesion."""
    X, y = draw_records(len(fold), 5)
    ones = np.ones(len(y))
    return Prepared(with_intercept(X), y, fold, np.arange(len(y)), ones, ones, X, fold)


def test_they_are_in_every_fit_and_in_no_judgement() -> None:
    fold = np.concatenate([np.arange(120) % FOLDS, np.full(40, -2)])
    records = prepared(fold)
    weights = np.random.default_rng(0).standard_normal((FOLDS, N_CLASSES, 6))
    got = hinge(records, weights, min_active=1)
    kept = np.array([(fold != f).astype(float) for f in range(FOLDS)])
    wanted, _ = hinge_sums(records.X1, records.y, kept, weights)
    np.testing.assert_allclose(got.loss, wanted.loss)
    np.testing.assert_allclose(got.gradient, wanted.gradient)
    images, scores = _unseen_scores(records, weights, FOLDS)
    assert images.tolist() == list(range(120))
    assert scores.shape == (120, N_CLASSES)
