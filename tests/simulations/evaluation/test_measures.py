"""Every metric against scikit-learn's, under weights as a bootstrap draws them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax
from sklearn import metrics

from common.statistics.metrics import Evaluation, Metrics
from common.task import HAM10000
from simulations.evaluation.answer_measures import AUGRCS, SHARES, SIZES, measure_answers
from simulations.evaluation.answered import Answered
from simulations.evaluation.measures import PER_CLASS, SCALARS, measure
from tests.examples import examples

MELANOMA = HAM10000.codes.index("mel")


@examples(30)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(20, 120),
    classes=st.integers(2, len(HAM10000.codes)),
    digits=st.integers(1, 6),
)
def test_every_metric_is_scikit_learns(seed, n, classes, digits):
    rng = np.random.default_rng(seed)
    present = np.sort(rng.permutation(len(HAM10000.codes))[:classes])
    labels = np.append(present, rng.choice(present, n - classes))
    logits = rng.normal(size=(n, len(HAM10000.codes))) + 1.5 * np.eye(len(HAM10000.codes))[labels]
    # Rounded logits tie, and so do their probabilities where all others are alike.
    chances = softmax(np.round(logits, digits), axis=1)
    predicted = np.where(rng.random(n) < 0.8, chances.argmax(axis=1), rng.choice(present, n))
    weights = rng.integers(0, 4, (3, n)).astype(float)
    weights[:, :classes] += 1  # of each class some
    found = measure(HAM10000, labels, predicted, chances, weights)
    assert set(found) == {*SCALARS, *(f"{m}/{dx}" for m in PER_CLASS for dx in HAM10000.codes)}
    for row, weight in enumerate(weights):
        expected = _by_scikit_learn(labels, predicted, chances, weight)
        for name, value in expected.items():
            assert found[name][row] == pytest.approx(value, abs=1e-9, nan_ok=True), name


def _by_scikit_learn(labels, predicted, chances, weight):
    """Judge by scikit-learn; means are over the classes present."""
    n_classes = len(HAM10000.codes)
    every = np.arange(n_classes)
    kwargs = {"sample_weight": weight}
    present = [c for c in every if (labels == c).any()]
    confusions = metrics.multilabel_confusion_matrix(labels, predicted, labels=every, **kwargs)
    f1 = metrics.f1_score(labels, predicted, labels=every, average=None, zero_division=0, **kwargs)
    values = {
        "accuracy": metrics.accuracy_score(labels, predicted, **kwargs),
        "brier": metrics.brier_score_loss(labels, chances, labels=every, **kwargs),
        "macro_f1": np.mean(f1[present]),
    }
    for c, ((tn, fp), (fn, tp)) in enumerate(confusions):
        own, dx = labels == c, HAM10000.codes[c]
        values[f"specificity/{dx}"] = tn / (tn + fp)
        known = c in present
        values[f"sensitivity/{dx}"] = tp / (tp + fn) if known else np.nan
        values[f"f1/{dx}"] = f1[c] if known else np.nan
        auc = metrics.roc_auc_score(own, chances[:, c], **kwargs) if known else np.nan
        precision = (
            metrics.average_precision_score(own, chances[:, c], **kwargs) if known else np.nan
        )
        values |= {f"auc/{dx}": auc, f"average_precision/{dx}": precision}
    for name, metric in (
        ("balanced_accuracy", "sensitivity"),
        ("macro_auc", "auc"),
        ("macro_average_precision", "average_precision"),
    ):
        values[name] = np.mean([values[f"{metric}/{HAM10000.codes[c]}"] for c in present])
    values["melanoma_sensitivity"] = np.nan
    if MELANOMA in present:
        false, true, _ = metrics.roc_curve(
            labels == MELANOMA, chances[:, MELANOMA], drop_intermediate=False, **kwargs
        )
        values["melanoma_sensitivity"] = true[false <= 0.05 + 1e-12].max()
    return values


@examples(30)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(20, 60), digits=st.integers(1, 6))
def test_answers_are_judged_as_by_a_loop_over_pairs_of_lesions(seed, n, digits):
    rng = np.random.default_rng(seed)
    labels = np.append(np.arange(7), rng.integers(0, 7, n - 7))
    p = softmax(np.round(rng.normal(size=(n, 7)), digits), axis=1)
    members = (rng.integers(0, 2, (n, k)).astype(float) for k in (7, 7, 2))
    answered = Answered(*members, np.round(rng.uniform(1, 2, n), 1))
    weights = rng.integers(1, 4, (2, n)) / rng.integers(1, 4, n)
    found = measure_answers(HAM10000, labels, p, answered, weights)
    assert set(found) == {*SHARES, *SIZES, *AUGRCS}
    wrong, own = p.argmax(axis=1) != labels, np.arange(n)
    malignant = np.isin(np.array(HAM10000.codes)[labels], HAM10000.malignant)
    for row, w in enumerate(weights):
        size, pooled = (
            np.average(members.sum(axis=1), weights=w)
            for members in (answered.inside, answered.inside_pooled)
        )
        expected = {
            "coverage": np.average(answered.inside[own, labels], weights=w),
            "set_size": size,
            "set_size_ratio": size / pooled,
            "risk_of_all": np.average(wrong, weights=w),
            "augrc": _augrc(wrong, p.max(axis=1), w),
            "augrc/margin": _augrc(wrong, -np.diff(np.sort(p)[:, ::-1])[:, 0], w),
            "augrc/size": _augrc(wrong, -answered.inside.sum(axis=1), w),
            "augrc/distance": _augrc(wrong, -answered.distance, w),
            "malignant_sensitivity": np.average(
                answered.flagged[malignant, 1], weights=w[malignant]
            ),
            "mel_specificity": np.average(
                answered.flagged[labels != MELANOMA, 0] == 0, weights=w[labels != MELANOMA]
            ),
        }
        for name, value in expected.items():
            assert found[name][row] == pytest.approx(value), name


def _augrc(wrong, sure, weight):
    """Return the chance that of two the first is wrong and at least as sure, ties a half."""
    pairs = weight[:, None] * weight
    sooner = (sure[:, None] > sure) + (sure[:, None] == sure) / 2
    return (pairs * wrong[:, None] * sooner).sum() / pairs.sum()


def test_calibration_error_is_that_of_the_runs():
    rng = np.random.default_rng(0)
    labels, chances = rng.integers(0, 7, 300), rng.dirichlet(np.ones(7), 300)
    predicted = chances.argmax(axis=1)
    times = rng.integers(0, 3, 300)
    weights = np.stack([np.ones(300), times.astype(float)])
    found = measure(HAM10000, labels, predicted, chances, weights)["calibration_error"]
    again = np.repeat(np.arange(300), times)
    for value, rows in zip(found, (np.arange(300), again), strict=True):
        counted = Evaluation.measure(labels[rows], predicted[rows], chances[rows])
        assert value == pytest.approx(Metrics.compute(counted).expected_calibration_error)
