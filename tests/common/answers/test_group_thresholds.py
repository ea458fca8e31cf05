"""Each group of patients is flagged as often; a small one has the common threshold."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from fairlearn.metrics import MetricFrame
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax
from sklearn.metrics import recall_score

from common.answers.answering import Answering, AnswerOptions
from common.answers.basis import AnswerBasis
from common.answers.counts import AnswerCounts
from common.answers.group_counts import ScreeningCounts
from common.answers.group_thresholds import LEAST_WITH_TARGET, GroupLesions
from common.answers.operating import target_probabilities
from common.answers.performance import performance
from common.config.run import RunConfig
from common.data.metadata import UNKNOWN, About
from common.data.patient_groups import NO_GROUP, PatientGroups
from common.errors import ConfigError
from common.models.file import load_model
from common.models.linear import LinearModel
from common.statistics.metrics import score_edges
from common.svm.feature_map import FeatureMap
from common.task import HAM10000

K = HAM10000.n_classes
MALIGNANT = np.isin(np.array(HAM10000.codes), HAM10000.malignant)
SEXES = np.array(["female", "male", "unknown"])


def draw(n, seed, few=0):
    """Return patients, labels and probabilities; women's lesions are harder to tell.

    Of the last ``few`` the sex is unknown.
    """
    rng = np.random.default_rng(seed)
    labels, female = rng.integers(0, K, n), rng.random(n) < 0.4
    sex = np.where(np.arange(n) >= n - few, "unknown", np.where(female, "female", "male"))
    logits = rng.normal(size=(n, K))
    logits[np.arange(n), labels] += np.where(female, 1.0, 3.0)
    return [About(sex=str(each)) for each in sex], labels, softmax(logits, axis=1)


def basis_of(patients, labels, p, text="sex"):
    """Count lesions as a federation does, in the closed lists of hospitals."""
    groups = PatientGroups.read(text)
    (dimension,) = groups.counted.dimensions
    numbers = [_counted(groups, patient) for patient in patients]
    size = len(groups.counted.names(dimension))
    counts = ScreeningCounts.measure(HAM10000, np.array(numbers), size, labels, p)
    lesions = GroupLesions(groups, groups.joined(counts.screening))
    every = AnswerCounts.measure(HAM10000, labels, p)
    plain = np.array([np.ones(K), np.zeros(K)])
    return AnswerBasis.of(HAM10000, plain, np.full(K, 1 / K), every, by_group=lesions)


def _counted(groups, patient):
    if groups.column == "age":
        return 10 if patient.age is None else min(int(patient.age // 10), 9)
    return {"female": 0, "male": 1, "unknown": 3}[patient.sex]


@pytest.mark.parametrize("sensitivity", [0.8, 0.95])
def test_each_group_has_the_largest_threshold_that_flags_as_many_of_its_malignant(sensitivity):
    patients, labels, p = draw(2000, 0, few=100)
    answering = Answering(basis_of(patients, labels, p), AnswerOptions(sensitivity=sensitivity))
    rules = answering.points_for(patients)
    chance, malignant = p[:, MALIGNANT].sum(axis=1), MALIGNANT[labels]
    sex = np.array([patient.sex for patient in patients])
    used = np.array([next(r.threshold for r in of if r.target == "malignant") for of in rules])
    common = [r.threshold for r in answering.points if r.target == "malignant"]
    for name in SEXES[:2]:
        own = chance[malignant & (sex == name)]
        edges = score_edges(K)
        reach = [t for t in edges if (own >= t).sum() >= sensitivity * (len(own) + 1)]
        assert set(used[sex == name]) == {max(reach)}
    assert [*set(used[sex == "unknown"])] == common

    def found(thresholds):
        known = sex != "unknown"
        return MetricFrame(
            metrics=recall_score,
            y_true=malignant[known],
            y_pred=(chance >= thresholds)[known],
            sensitive_features=sex[known],
        )

    assert found(used).difference() < 0.02 < 0.05 < found(np.array(common)).difference()
    assert found(used).by_group.min() >= sensitivity
    for of, patient in zip(rules, patients, strict=True):
        group = "" if patient.sex == "unknown" else f"sex {patient.sex}"
        assert [rule.group for rule in of] == [group] * 2


def test_a_group_of_few_malignant_lesions_and_a_model_of_one_threshold_have_the_common_one():
    patients, labels, p = draw(2000, 1)
    women = np.flatnonzero([patient.sex == "female" for patient in patients])
    of_women = women[MALIGNANT[labels[women]]]
    kept = np.setdiff1d(np.arange(2000), of_women[LEAST_WITH_TARGET - 1 :])
    few = ([patients[i] for i in kept], labels[kept], p[kept])
    one_more = np.append(kept, of_women[-1])
    enough = ([patients[i] for i in one_more], labels[one_more], p[one_more])
    woman, man = About(sex="female"), About(sex="male")
    for given_, expected in ((few, ""), (enough, "sex female")):
        answering = Answering(basis_of(*given_), AnswerOptions())
        first, second = (next(r for r in of if r.target == "malignant") for of in
                         answering.points_for([woman, man]))  # fmt: skip
        assert (first.group, second.group) == (expected, "sex male")
        told = [w for w in answering.warnings if w.startswith("screening for malignant")]
        assert ("sex female" in told[0]) == bool(expected)
    # No group has lesions enough for a sensitivity of 99.9 %.
    options = AnswerOptions(sensitivity=0.99)
    hard = Answering(basis_of(*enough), options).points_for([woman])[0]
    assert [rule.group for rule in hard if rule.target == "malignant"] == [""]
    basis = AnswerBasis.of(HAM10000, *(basis_of(*few).calibration, np.full(K, 1 / K)),
                           AnswerCounts.measure(HAM10000, labels, p))  # fmt: skip
    plain = Answering(basis, AnswerOptions())
    assert plain.points_for([woman, UNKNOWN]) == [plain.points] * 2


def test_answers_flag_by_the_threshold_that_they_name():
    patients, labels, p = draw(1500, 2, few=100)
    answering = Answering(basis_of(patients, labels, p), AnswerOptions())
    said = answering.answers([""] * 1500, p, np.full(1500, np.nan), patients)
    chances = target_probabilities(p, HAM10000)
    common = {point.target: point.threshold for point in answering.points}
    changed = 0
    for answer, row, patient in zip(said, chances, patients, strict=True):
        for rule, chance in zip(answer.screening, row, strict=True):
            known = patient.sex != "unknown"
            assert rule.flagged == (chance >= rule.threshold)
            assert rule.group == (f"sex {patient.sex}" if known else None)
            assert rule.common_threshold == (common[rule.target] if known else None)
            changed += rule.flagged != (chance >= common[rule.target])
    assert changed > 20
    nobody = answering.answers([""] * 1500, p, np.full(1500, np.nan))
    assert {rule.group for answer in nobody for rule in answer.screening} == {None}


def test_a_run_says_what_both_thresholds_give_on_each_groups_calibration_lesions():
    patients, labels, p = draw(1200, 4)
    basis = basis_of(patients, labels, p)
    points = {point.target: point for point in Answering(basis, AnswerOptions()).points}
    found = performance(basis, basis.lesions, {})["thresholds_by_group"]
    chances = target_probabilities(p, HAM10000)
    having = np.stack([labels == HAM10000.codes.index("mel"), MALIGNANT[labels]], axis=1)
    for name in ("female", "male"):
        of_it = np.array([patient.sex == name for patient in patients])
        for column, target in enumerate(("mel", "malignant")):
            each, has = found[f"sex {name}"][target], having[of_it, column]
            assert each["lesions"] == has.sum()
            for rule in (each["common"], each["own"]):
                flagged = chances[of_it, column] >= rule["threshold"]
                assert rule["sensitivity"] == pytest.approx(flagged[has].mean())
                assert rule["specificity"] == pytest.approx(1 - flagged[~has].mean())
            assert each["common"]["threshold"] == points[target].threshold
            assert each["own"]["sensitivity"] >= 0.95
    assert (
        performance(replace(basis, by_group=None), basis.lesions, {})["thresholds_by_group"] is None
    )


@given(
    st.sets(st.sampled_from(range(10, 100, 10)), min_size=1).map(sorted),
    st.lists(st.none() | st.floats(0, 120), max_size=30),
)
def test_decades_add_up_to_the_groups_that_ages_are_in(edges, ages):
    groups = PatientGroups.read(f"age:{','.join(map(str, edges))}")
    patients = [About(age) for age in ages]
    counted = np.bincount([_counted(groups, patient) for patient in patients], minlength=12)
    limits = [0, *edges, 1000]
    expected = [
        sum(age is not None and low <= age < high for age in ages) for low, high in pairwise(limits)
    ]
    assert groups.joined(counted).tolist() == expected
    own = groups.of(patients)
    assert np.bincount(own[own != NO_GROUP], minlength=len(expected)).tolist() == expected
    assert len(groups.names) == len(expected)


def test_a_model_file_keeps_the_groups_lesions(tmp_path: Path):
    patients, labels, p = draw(600, 3)
    basis = basis_of(patients, labels, p)
    config = RunConfig.read({"screening_by": "sex"})
    features = FeatureMap(np.zeros(4), np.eye(4))
    LinearModel(features, np.zeros((K, 5)), basis, config).save(tmp_path / "model.safetensors")
    read = load_model(tmp_path / "model.safetensors").basis.by_group
    assert read.groups == basis.by_group.groups
    np.testing.assert_array_equal(read.screening, basis.by_group.screening)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"screening_by": "site"}, "no groups of patients by 'site'; write one of sex, age, loc"),
        ({"screening_by": "sex,age"}, "no groups of patients by 'sex,age'"),
        ({"screening_by": "sex:40"}, "no groups of patients by 'sex:40'"),
        ({"screening_by": "age:45"}, "an edge of ages at 45, but hospitals count"),
        ({"screening_by": "age:60,40"}, "do not ascend"),
        ({"screening_by": "age:40,sex"}, "names several columns"),
        ({"screening_by": "sex", "head": "lda"}, "head lda has no calibration lesions"),
        ({"screening_by": "sex", "diagnoses": "nv,bkl"}, "no screening rule is for these"),
        ({"screening_by": "sex", "method": "private", "epsilon": 3}, "a private method counts no"),
        ({"screening_by": "sex", "method": "private_finetune"}, "a private method counts no"),
        ({"screening_by": "sex", "method": "validate"}, "the model to judge has its own"),
        (
            {"screening_by": "sex", "method": "finetune", "robust": "median", "hostile": 1,
             "optimizer": "sgd", "patience": 0},
            "with 'hostile' sites nothing is calibrated",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_with_its_reason(settings, reason):
    with pytest.raises(ConfigError, match=r"(?s)") as error:
        RunConfig.read(settings)
    assert reason in str(error.value)
