"""Figures by group are fairlearn's; gaps keep their promise, and one mix takes the mix away."""

import numpy as np
import pytest
from fairlearn.metrics import MetricFrame
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, recall_score, roc_auc_score

from common.task import HAM10000
from simulations.evaluation.answered import Answered
from simulations.evaluation.groups.figures import LEAST, Grouping, by_group
from simulations.evaluation.groups.gaps import Resampled, simultaneous
from simulations.evaluation.groups.measures import METRICS, Records
from simulations.evaluation.groups.weights import lesion_weights, standardised

CODES = np.array(HAM10000.codes)
K = HAM10000.n_classes
FLAG = (0.3, 0.4)
"""Thresholds of the screening rules for melanoma and for the malignant."""


def drawn(n, seed, skill=3.0):
    """Return labels, probabilities and groups of n images, one a lesion."""
    rng = np.random.default_rng(seed)
    labels = np.append(np.arange(K), rng.integers(0, K, n - K))
    logits = rng.normal(size=(n, K))
    logits[np.arange(n), labels] += skill * rng.random(n)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return labels, p, rng.choice(["a", "b", "c"], n, p=[0.6, 0.3, 0.1])


def records(labels, p, weights):
    malignant = np.isin(CODES, HAM10000.malignant)
    chances = np.column_stack([p[:, CODES == "mel"][:, 0], p[:, malignant].sum(axis=1)])
    answered = Answered(p > 0.1, p > 0.1, (chances >= FLAG).astype(float), np.zeros(len(p)))
    return Records.of(HAM10000, labels, p.argmax(axis=1), p, answered, weights)


def grouping(group):
    return Grouping("letter", sorted(set(group) - {""}), group)


def test_figures_and_gaps_are_those_of_fairlearn():
    labels, p, group = drawn(600, 1)
    weights = lesion_weights(labels, np.arange(600).astype(str), 0, 50)
    found = by_group(records(labels, p, weights[0]), weights, [grouping(group)])
    malignant = np.isin(CODES[labels], HAM10000.malignant)
    chance = p[:, np.isin(CODES, HAM10000.malignant)].sum(axis=1)
    flagged, called = chance >= FLAG[1], p.argmax(axis=1)
    covered = p[np.arange(600), labels] > 0.1
    expected = {
        "balanced_accuracy": (balanced_accuracy_score, labels, called),
        "malignant_sensitivity": (recall_score, malignant, flagged),
        "malignant_specificity": (lambda t, q: recall_score(~t, ~q), malignant, flagged),
        "auc": (roc_auc_score, malignant, chance),
        "coverage": (lambda t, q: np.mean(q), labels, covered),
    }
    for name, (metric, truth, said) in expected.items():
        frame = MetricFrame(
            metrics=metric, y_true=truth, y_pred=said, sensitive_features=group
        ).by_group
        for each in found.groups:
            rest = metric(truth[group != each.group], said[group != each.group])
            assert each.metrics[name].value == pytest.approx(frame[each.group]), name
            assert each.gaps[name].value == pytest.approx(frame[each.group] - rest), name
    melanoma = labels == HAM10000.codes.index("mel")
    for each in found.groups:
        of_it = melanoma & (group == each.group)
        value = each.metrics["melanoma_sensitivity"].value
        assert value == pytest.approx((p[of_it, HAM10000.codes.index("mel")] >= FLAG[0]).mean())
    shares = [g.metrics["referred"].value * g.lesions for g in found.groups]
    assert sum(shares) == pytest.approx(60)


@settings(max_examples=30)
@given(st.integers(0, 10**6))
def test_images_of_a_lesion_are_worth_one_whatever_their_number(seed):
    labels, p, group = drawn(120, seed)
    names = np.arange(120).astype(str)
    once = lesion_weights(labels, names, 3, 5)
    times = np.random.default_rng(seed).integers(1, 4, 120)
    again = np.repeat(np.arange(120), times)
    more = lesion_weights(labels[again], names[again], 3, 5)
    a = by_group(records(labels, p, once[0]), once, [grouping(group)])
    b = by_group(records(labels[again], p[again], more[0]), more, [grouping(group[again])])
    for one, other in zip(a.groups, b.groups, strict=True):
        assert one.lesions == pytest.approx(other.lesions)
        for name in METRICS.keys() - {"referred"}:  # at the edge a part of a lesion is referred
            np.testing.assert_allclose(one.metrics[name], other.metrics[name], atol=1e-9)
            np.testing.assert_allclose(
                one.gaps[name].value,
                other.gaps[name].value,
                atol=1e-9,
            )


def test_one_mix_takes_away_what_the_mix_alone_makes():
    """Two groups are served alike in each class; only one of them has more of the easy class."""
    nv, bkl = HAM10000.codes.index("nv"), HAM10000.codes.index("bkl")
    mel = HAM10000.codes.index("mel")
    rows = []  # group, class, number, number that is flagged as malignant
    for name, many in (("a", 400), ("b", 40)):
        rows += [(name, nv, many, many // 10), (name, bkl, 40, 20), (name, mel, 40, 30)]
    group = np.concatenate([np.full(n, name) for name, _, n, _ in rows])
    labels = np.concatenate([np.full(n, c) for _, c, n, _ in rows])
    flag = np.concatenate([np.arange(n) < m for _, _, n, m in rows])
    p = np.full((len(labels), K), 0.02)
    p[np.arange(len(p)), np.where(flag, mel, nv)] = 1 - 0.02 * (K - 1)
    weights = lesion_weights(labels, np.arange(len(labels)).astype(str), 0, 300)
    found = by_group(records(labels, p, weights[0]), weights, [grouping(group)])
    for each in found.groups:
        assert abs(each.gaps["malignant_specificity"].value) > 0.1
        assert each.gaps["malignant_specificity"].shown
        assert each.standardised["malignant_specificity"].value == pytest.approx(0, abs=1e-9)
        assert not each.standardised["malignant_specificity"].shown


def test_a_group_without_enough_lesions_has_no_gap_and_a_perfect_one_is_not_certain():
    labels, p, group = drawn(300, 5, skill=60.0)
    group[:] = "a"
    group[-60:], group[-3:] = "b", "c"
    weights = lesion_weights(labels, np.arange(300).astype(str), 0, 200)
    found = by_group(records(labels, p, weights[0]), weights, [grouping(group)])
    few = found.groups[2]
    assert few.lesions < LEAST
    assert all(np.isnan(gap.value) for gap in few.gaps.values())
    right = by_group(
        records(labels, np.eye(K)[labels] * 0.9 + 0.1 / K, weights[0]), weights, [grouping(group)]
    ).groups[1]
    gap = right.gaps["balanced_accuracy"]
    assert gap.value == 0
    assert gap.low < -0.02 < 0.02 < gap.high
    assert gap.detectable > gap.high


@settings(max_examples=20)
@given(st.integers(0, 10**6))
def test_a_standardised_mix_is_the_one_asked_for(seed):
    labels, _, _ = drawn(80, seed)
    weights = lesion_weights(labels, np.arange(80).astype(str), seed, 4)
    mix = np.random.default_rng(seed).dirichlet(np.ones(K))
    got = standardised(labels, weights, mix) @ np.eye(K)[labels]
    np.testing.assert_allclose(got, np.broadcast_to(mix, got.shape))


def test_simultaneous_intervals_fail_as_often_as_they_say_and_gaps_are_seen_as_often():
    """Twenty independent gaps, known errors: one claim in twenty families is wrong; 80 % power."""
    rng = np.random.default_rng(8)
    error, families = 0.05, 400
    resamples = error * rng.normal(size=(20, 2000))
    wrong = seen = 0
    for _ in range(families):
        values = error * rng.normal(size=20)
        gaps, _ = simultaneous(
            [Resampled(np.append(v, v + r), 0.0) for v, r in zip(values, resamples, strict=True)]
        )
        wrong += any(gap.shown for gap in gaps)
        true = gaps[0].detectable
        moved, _ = simultaneous(
            [
                Resampled(np.append(v + true * (i == 0), v + r), 0.0)
                for i, (v, r) in enumerate(zip(values, resamples, strict=True))
            ]
        )
        seen += moved[0].low > 0
    assert 0.02 < wrong / families < 0.085
    assert 0.74 < seen / families < 0.86
