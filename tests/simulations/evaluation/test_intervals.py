"""Intervals against slow loops over resamples, and what they say about lesions."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from common.task import HAM10000
from simulations.evaluation.intervals import (
    bootstrap,
    interval,
    metric_interval,
    paired_difference,
    resample,
)
from simulations.evaluation.measures import CALIBRATION_ERRORS, RocCurve, measure

Records = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]


def draw(
    n_lesions: int, images: int = 1, *, seed: int = 0, signal: float = 1.0, n_classes: int = 3
) -> Records:
    """Draw labels, predictions, probabilities and lesions; a lesion's images all look the same."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n_lesions) % n_classes
    logits = rng.normal(size=(n_lesions, n_classes))
    logits += signal * (labels[:, None] == np.arange(n_classes))
    lesion = np.repeat(np.arange(n_lesions), images)
    probabilities = softmax(logits, axis=1)[lesion]
    return labels[lesion], probabilities.argmax(axis=1), probabilities, lesion


def test_weighted_auc_is_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    positive = rng.random(200) < 0.3
    scores = np.round(rng.normal(size=200) + positive, 1)  # rounded: many ties
    weights = rng.integers(0, 4, size=(5, 200)).astype(np.float64)
    want = [roc_auc_score(positive, scores, sample_weight=w) for w in weights]
    np.testing.assert_allclose(RocCurve.of(positive, scores, weights).area(), want, rtol=1e-12)


def test_bootstrap_is_that_of_a_loop_over_resamples() -> None:
    y, predicted, p, lesion = draw(60, images=2)
    rows = resample(y, lesion, seed=1, repeats=50).astype(np.int64)
    drawn = [np.repeat(np.arange(len(y)), row) for row in rows]
    want = {
        "accuracy": [np.mean(y[i] == predicted[i]) for i in drawn],
        "balanced_accuracy": [balanced_accuracy_score(y[i], predicted[i]) for i in drawn],
        "macro_auc": [roc_auc_score(y[i], p[i], multi_class="ovr") for i in drawn],
    }
    got = bootstrap(y, predicted, p, lesion, seed=1, repeats=50)
    assert got.keys() == want.keys()
    for name, values in want.items():
        np.testing.assert_allclose(got[name], np.quantile(values, [0.025, 0.975]), rtol=1e-12)


def test_resamples_keep_lesions_whole_and_classes_at_their_size() -> None:
    rng = np.random.default_rng(2)
    lesion = rng.integers(40, size=150)
    y = lesion % 4
    weights = resample(y, lesion, seed=0, repeats=20)
    assert len(np.unique(weights[:, lesion == 7], axis=1).T) == 1
    _, once = np.unique(lesion, return_index=True)
    for c in range(4):
        members = once[y[once] == c]
        np.testing.assert_array_equal(weights[:, members].sum(axis=1), len(members))


def test_bootstrap_depends_on_the_seed_alone() -> None:
    records = draw(60)
    assert bootstrap(*records, seed=3) == bootstrap(*records, seed=3)
    assert bootstrap(*records, seed=3) != bootstrap(*records, seed=4)


def test_images_of_one_lesion_do_not_narrow_the_interval() -> None:
    y, predicted, p, lesion = draw(150, images=4)
    whole = bootstrap(y, predicted, p, lesion, seed=0)
    apart = bootstrap(y, predicted, p, np.arange(len(y)), seed=0)
    for name, (low, high) in whole.items():
        # Four copies of each lesion carry the information of one: sqrt(4) times wider.
        assert 1.7 < (high - low) / (apart[name][1] - apart[name][0]) < 2.3


def test_interval_covers_the_true_value_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    y = np.arange(200) % 2
    covered = 0
    for seed in range(100):
        predicted = np.where(rng.random(200) < 0.8, y, 1 - y)
        p = np.eye(2)[predicted]
        low, high = bootstrap(y, predicted, p, np.arange(200), seed=seed, repeats=300)["accuracy"]
        covered += low <= 0.8 <= high
    assert 88 <= covered <= 100


def test_paired_difference_is_narrower_than_the_models_own_intervals() -> None:
    y, predicted, p, lesion = draw(300)
    better = softmax(np.log(p) + 0.3 * (y[:, None] == np.arange(3)), axis=1)
    first, second = (better.argmax(axis=1), better), (predicted, p)
    own = bootstrap(y, predicted, p, lesion, seed=0)
    for name, (low, high) in paired_difference(y, first, second, lesion, seed=0).items():
        assert 0 < low < high
        assert high - low < own[name][1] - own[name][0]
    same = paired_difference(y, first, first, lesion, seed=0)
    assert set(same.values()) == {(0.0, 0.0)}


def test_a_calibration_error_lies_in_its_interval_though_resamples_are_noisier() -> None:
    """Of probabilities that are right; without the correction some lie below."""
    rng, below = np.random.default_rng(0), 0
    for seed in range(10):
        p = rng.dirichlet(np.full(7, 0.3), 400)
        y = np.array([rng.choice(7, p=row) for row in p])
        weights = np.vstack([np.ones(400), resample(y, np.arange(400), seed=seed, repeats=100)])
        found = measure(HAM10000, y, p.argmax(axis=1), p, weights)
        for name in CALIBRATION_ERRORS:
            value, resamples = float(found[name][0]), found[name][1:]
            low, high = metric_interval(name, value, resamples)
            assert 0 <= low < value < high
            below += value < interval(resamples)[0]
    assert below > 0


def test_a_lesion_of_two_classes_and_a_test_set_of_one_are_refused() -> None:
    y, predicted, p, lesion = draw(12)
    with pytest.raises(ValueError, match="one lesion must have one class"):
        bootstrap(y, predicted, p, lesion // 2, seed=0)
    with pytest.raises(ValueError, match="at least two classes"):
        bootstrap(np.zeros_like(y), predicted, p, lesion, seed=0)
