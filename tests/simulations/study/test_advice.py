"""Advice follows the figures: other figures, other advice."""

import pytest

from simulations.study.advice import advise
from tests.simulations.arms import make_arm, make_findings

LESIONS = 600


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
    return {a.question: a.answer for a in advise(make_findings(arms, latency))}


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
    which = found["Which route diagnoses best?"]
    assert which.startswith("Of the arms on pooled data fine-tuning, pooled (")
    assert "Linear SVM is worse: -1" in which
    scarce = found["What if computing is scarce?"]
    assert scarce.startswith("Linear SVM needs least: 0.033 minutes")
    assert "50.5 times less than fine-tuning" in scarce
    assert "at worst): it may cost more" in found["What if a diagnosis must be explained?"]
    close = _advice((0.7, 0.7), (0.89, 0.9))
    assert (
        "Linear SVM: it loses less than 5 points" in close["What if a diagnosis must be explained?"]
    )
    best = _advice((0.7, 0.7), (0.9, 0.7))
    explained = best["What if a diagnosis must be explained?"]
    assert explained == "Linear SVM: it is the simplest and the best."
    assert best["What if computing is scarce?"].endswith("and it is also the best.")


def test_real_time_is_a_limit_not_a_race():
    question = "What if an answer is needed in real time?"
    known = ((0.7, 0.7), (0.7, 0.9))
    assert _advice(*known)[question].startswith(
        "Fine-tuning, the best of those that are fast enough"
    )
    slow = _advice(*known, latency={"svm": 0.02, "net": 0.5})
    assert slow[question].startswith("Linear SVM, the best of those that are fast enough")
    none = _advice(*known, latency={"svm": 0.2, "net": 0.5})
    assert none[question].startswith("None is fast enough on this machine (")


def test_the_highest_of_all_is_named_where_it_is_not_on_pooled_data():
    """So that no sentence says "highest" of an arm that the charts show below another."""
    question, known = "Which route diagnoses best?", ((0.7, 0.7), (0.8, 0.85))
    assert "highest of all" not in _advice(*known)[question]
    more = _advice(*known, natural=0.95)[question]
    assert "The highest of all arms is linear SVM, 1 site (9" in more


def test_federation_is_identical_equal_worse_or_undecided():
    question, known = "What does federation cost linear SVM?", ((0.7, 0.7), (0.8, 0.8))
    assert _advice(*known)[question] == "Against pooled data, over 1 site it is identical."
    assert "1 site it is equal within the margin: -" in _advice(*known, natural=0.797)[question]
    assert "1 site it is worse: -" in _advice(*known, natural=0.6)[question]
    gain = _advice(*known)["What does a site gain by taking part (linear SVM)?"]
    assert "over the best site alone (b)" in gain
    assert "over the mean of the 2 sites" in gain


def test_privacy_is_told_with_its_price_or_its_absence():
    question = "What if lesions must be hidden by differential privacy?"
    known = ((0.7, 0.7), (0.8, 0.9))
    assert _advice(*known)[question] == "No arm of this study promises differential privacy."
    more = [make_arm("secret", 0.6, LESIONS, spread="pooled")]
    answer = _advice(*known, more=more)[question]
    assert answer.startswith("Private linear (ε = 3), pooled (")
    assert " at delta 1e-05; -" in answer
    like, best = answer.split("; ")[1:]
    assert like.endswith(" points against linear SVM, pooled")
    assert best.endswith(" points against fine-tuning, pooled.")
