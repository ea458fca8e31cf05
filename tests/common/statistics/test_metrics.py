"""Every metric against scikit-learn, and every split of the records against the pool."""

import json
from functools import reduce
from operator import add
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn import metrics as sk

from common.statistics.metrics import CALIBRATION_BINS, Evaluation, Metrics
from tests.examples import examples

CLASSES = ["akiec", "bcc", "bkl", "df", "mel", "nv", "vasc"]
K = len(CLASSES)
Records = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]


def draw(n: int, *, seed: int = 0, sharpness: float = 1.0) -> Records:
    """Draw records with HAM10000's class shares and a model that is often right."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(K, n, p=[0.033, 0.051, 0.11, 0.0115, 0.111, 0.67, 0.0135])
    logits = rng.normal(size=(n, K)) + 1.2 * (labels[:, None] == np.arange(K))
    probabilities = softmax(sharpness * logits, axis=1)
    return labels, probabilities.argmax(axis=1), probabilities


def assert_same(got: Evaluation, want: Evaluation) -> None:
    for name in ("confusion", "scores", "calibration"):
        np.testing.assert_array_equal(getattr(got, name), getattr(want, name))
    for name in ("confidence", "brier", "log_loss"):
        np.testing.assert_allclose(getattr(got, name), getattr(want, name), rtol=1e-12)


def test_every_metric_is_scikit_learns() -> None:
    y, predicted, p = draw(2000)
    got = Metrics.compute(Evaluation.measure(y, predicted, p))
    precision, recall, f1, _ = sk.precision_recall_fscore_support(y, predicted)
    one_vs_rest = sk.multilabel_confusion_matrix(y, predicted)
    want: dict[str, Any] = {
        "n": 2000,
        "accuracy": sk.accuracy_score(y, predicted),
        "balanced_accuracy": sk.balanced_accuracy_score(y, predicted),
        "macro_f1": sk.f1_score(y, predicted, average="macro"),
        "brier": sk.brier_score_loss(y, p),
        "log_loss": sk.log_loss(y, p),
        "sensitivity": recall,
        "specificity": one_vs_rest[:, 0, 0] / one_vs_rest[:, 0].sum(axis=1),
        "precision": precision,
        "f1": f1,
        "confusion": sk.confusion_matrix(y, predicted),
    }
    for name, value in want.items():
        np.testing.assert_allclose(getattr(got, name), value, rtol=1e-12, err_msg=name)


def test_json_needs_a_name_for_every_class() -> None:
    with pytest.raises(ValueError, match="zip"):
        Metrics.compute(Evaluation.zero(K)).to_json(CLASSES[:2])


@pytest.mark.parametrize("sharpness", [1e-3, 0.1, 1, 10, 50])
def test_auc_from_counts_is_close_for_flat_and_for_confident_models(sharpness: float) -> None:
    y, predicted, p = draw(5000, sharpness=sharpness)
    got = Metrics.compute(Evaluation.measure(y, predicted, p))
    exact = [sk.roc_auc_score(y == k, p[:, k]) for k in range(K)]
    np.testing.assert_allclose(got.auc, exact, atol=1e-3)
    assert got.macro_auc == pytest.approx(sk.roc_auc_score(y, p, multi_class="ovr"), abs=5e-4)


def test_auc_of_a_constant_model_is_one_half() -> None:
    y, predicted, _ = draw(500)
    got = Metrics.compute(Evaluation.measure(y, predicted, np.full((500, K), 1 / K)))
    np.testing.assert_array_equal(got.auc, 0.5)


def test_calibration_error_is_that_of_a_loop_over_bins() -> None:
    y, predicted, p = draw(1000, sharpness=2)
    p[:15] = np.eye(K)[predicted[:15]]  # on the edge of the last bin
    confidence, correct = p.max(axis=1), predicted == y
    error = 0.0
    for m in range(CALIBRATION_BINS):
        inside = (confidence > m / CALIBRATION_BINS) & (confidence <= (m + 1) / CALIBRATION_BINS)
        if inside.any():
            error += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    got = Metrics.compute(Evaluation.measure(y, predicted, p))
    assert got.expected_calibration_error == pytest.approx(error, rel=1e-12)


@examples(40)
@given(
    n=st.integers(0, 60),
    n_sites=st.integers(1, 6),
    by_class=st.booleans(),
    single=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_sites_add_up_to_the_pooled_records(
    n: int, n_sites: int, by_class: bool, single: bool, seed: int
) -> None:
    y, predicted, p = draw(n, seed=seed, sharpness=3)
    p = p.astype(np.float32 if single else np.float64)
    site = y if by_class else np.random.default_rng(seed).integers(n_sites, size=n)
    parts = [
        Evaluation.measure(y[site == s], predicted[site == s], p[site == s])
        for s in range(K)  # more sites than are used: some are empty
    ]
    template = Evaluation.zero(K)
    received = [template.from_record(part.to_record()) for part in parts]
    assert_same(reduce(add, received, template), Evaluation.measure(y, predicted, p))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("n", [0, 4])
def test_what_is_undefined_is_null_without_a_warning(n: int) -> None:
    melanoma, nevus = CLASSES.index("mel"), CLASSES.index("nv")
    y, predicted = np.full(n, nevus), np.full(n, melanoma)
    p = np.eye(K)[predicted]
    report = Metrics.compute(Evaluation.measure(y, predicted, p)).to_json(CLASSES)
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert report["n"] == n
    assert report["macro_auc"] is None
    assert report["confusion"][nevus][melanoma] == n
    assert set(report["per_class"]["df"].values()) == ({None, 1.0} if n else {None})
    if n:
        assert report["per_class"]["nv"]["sensitivity"] == report["balanced_accuracy"] == 0
        assert report["per_class"]["nv"]["precision"] is None
        assert report["expected_calibration_error"] == 1
        assert report["brier"] == 2


Y, P = np.array([0, 1]), np.array([[0.9, 0.1], [0.2, 0.8]])


@pytest.mark.parametrize(
    ("labels", "predicted", "probabilities", "message"),
    [
        (Y, Y, P[:, :1], "n_classes >= 2"),
        (Y[:1], Y, P, "labels are"),
        (Y, Y.astype(float), P, "predicted are"),
        (Y, Y + 1, P, r"predicted must lie in \[0, 2\)"),
        (Y - 1, Y, P, r"labels must lie in \[0, 2\)"),
        (Y, Y, P - [1, -1], r"lie in \[0, 1\]"),
        (Y, Y, P * np.nan, r"lie in \[0, 1\]"),
        (Y, Y, P / 2, "sum to 1"),
    ],
)
def test_impossible_predictions_are_refused(
    labels: Any, predicted: Any, probabilities: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Evaluation.measure(labels, predicted, probabilities)
