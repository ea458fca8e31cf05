"""Advice follows the figures: other figures, other advice."""

import pytest

from simulations.study.advice import advise
from simulations.study.cost import RouteCost
from simulations.study.definition import Study
from simulations.study.findings import FEDERATION, ROUTES, Findings
from simulations.study.paired_tests import compare_pairs
from simulations.study.results import ArmResult
from tests.simulations.arms import make_arm

STUDY = {
    "scales": [0.1, 1.0],
    "margin": 0.05,
    "realtime": 0.1,
    "routes": {
        "svm": {},
        "net": {"method": "finetune"},
        "secret": {"method": "private", "epsilon": 3},
    },
    "spreads": {
        "pooled": {"scheme": "pooled"},
        "natural": {"scheme": "natural"},
        "alone": {"scheme": "alone"},
    },
    "arms": [{"route": "svm", "spreads": ["pooled", "natural", "alone"]}],
}

LESIONS = 600


def _findings(arms: list[ArmResult], latency: dict[str, float]) -> Findings:
    study = Study.model_validate(STUDY)
    pooled = {(a.arm.route, a.arm.scale): a for a in arms if a.arm.spread == "pooled"}
    federation = [(a, pooled[a.arm.route, a.arm.scale]) for a in arms if a.arm.spread != "pooled"]
    routes = [
        (second, first)
        for i, first in enumerate(arms)
        for second in arms[i + 1 :]
        if first.arm[1:] == second.arm[1:]
    ]
    comparisons = [
        *compare_pairs(FEDERATION, federation, study.margin, 0),
        *compare_pairs(ROUTES, routes, study.margin, 0),
    ]
    costs = {
        route: RouteCost(0.01, {1: seconds, 32: 20 * seconds}, 10**6, 10**7)
        for route, seconds in latency.items()
    }
    return Findings(study, {}, arms, comparisons, costs)


def _advice(little: tuple[float, float], much: tuple[float, float], **changes) -> dict[str, str]:
    """Return answers by question, where the SVM and the network are right that often."""
    arms = [
        make_arm("svm", little[0], LESIONS, scale=0.1),
        make_arm("net", little[1], LESIONS, scale=0.1),
        make_arm("svm", much[0], LESIONS, seconds=changes.get("svm_seconds", 1.0)),
        make_arm("net", much[1], LESIONS, seconds=100.0),
        make_arm("svm", changes.get("natural", much[0]), LESIONS, spread="natural"),
        make_arm("svm", 0.5, LESIONS, spread="alone", site="a"),
        make_arm("svm", 0.6, LESIONS, spread="alone", site="b"),
        *changes.get("more", []),
    ]
    latency = changes.get("latency", {"svm": 0.02, "net": 0.05})
    return {a.question: a.answer for a in advise(_findings(arms, latency))}


@pytest.mark.parametrize(
    ("little", "much", "said"),
    [
        ((0.8, 0.6), (0.8, 0.9), "The claim holds here."),
        ((0.8, 0.6), (0.8, 0.8), "Half of the claim holds here: the SVM wins at 10%"),
        ((0.7, 0.7), (0.7, 0.9), "Half of the claim holds here: fine-tuning wins on all"),
        ((0.6, 0.8), (0.8, 0.8), "The claim is not borne out here."),
        ((0.6, 0.8), (0.9, 0.8), "The claim is not borne out here."),
    ],
)
def test_the_claim_on_scale_is_judged_by_both_ends(little, much, said):
    answer = _advice(little, much)["Does the SVM win on little data and fine-tuning on much?"]
    assert answer.startswith(said)
    assert "10%: " in answer
    assert "100%: " in answer


def test_the_best_the_cheapest_and_the_simplest_are_told_apart():
    found = _advice((0.7, 0.7), (0.75, 0.9))
    assert found["Which route diagnoses best on all data?"].startswith("net pooled (0.")
    assert "svm pooled is worse: -1" in found["Which route diagnoses best on all data?"]
    assert found["What if computing is scarce?"].startswith("svm needs least: 2 s")
    assert "50.5 times less than net" in found["What if computing is scarce?"]
    assert "at worst): it may cost more" in found["What if a diagnosis must be explained?"]
    close = _advice((0.7, 0.7), (0.89, 0.9))
    assert "svm: it loses less than 5 points" in close["What if a diagnosis must be explained?"]
    best = _advice((0.7, 0.7), (0.9, 0.7))
    assert best["What if a diagnosis must be explained?"] == "svm: it is the simplest and the best."
    assert best["What if computing is scarce?"].endswith("and it is also the best.")


def test_real_time_is_a_limit_not_a_race():
    question = "What if an answer is needed in real time?"
    known = ((0.7, 0.7), (0.7, 0.9))
    assert _advice(*known)[question].startswith("net, the best of those that are fast enough")
    slow = _advice(*known, latency={"svm": 0.02, "net": 0.5})
    assert slow[question].startswith("svm, the best of those that are fast enough")
    none = _advice(*known, latency={"svm": 0.2, "net": 0.5})
    assert none[question].startswith("None is fast enough on this machine (")


def test_federation_is_equal_worse_or_undecided():
    question, known = "What does federation cost svm?", ((0.7, 0.7), (0.8, 0.8))
    assert "natural is equal within the margin: +0.0" in _advice(*known)[question]
    assert "natural is worse: -" in _advice(*known, natural=0.6)[question]
    gain = _advice(*known)["What does a hospital gain by taking part (svm)?"]
    assert "over the best site alone (b)" in gain
    assert "over the mean of the 2 sites" in gain


def test_privacy_is_told_with_its_price_or_its_absence():
    question = "What if lesions must be hidden by differential privacy?"
    known = ((0.7, 0.7), (0.8, 0.9))
    assert _advice(*known)[question] == "No arm of this study promises differential privacy."
    more = [make_arm("secret", 0.6, LESIONS, spread="pooled")]
    answer = _advice(*known, more=more)[question]
    assert answer.startswith("secret pooled (0.")
    assert "at epsilon 3, delta 1e-05; " in answer
    assert answer.endswith(" points below the best without privacy on pooled data.")
