"""How answers do, from added counts, against a slow count of each lesion's own answer."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import softmax
from scipy.stats import binomtest

from common.answers.answering import Answering, AnswerOptions
from common.answers.basis import AnswerBasis
from common.answers.counts import AnswerCounts
from common.answers.performance import performance
from common.statistics.calibration import uncalibrated
from common.statistics.metrics import score_edges
from common.task import HAM10000
from tests.examples import examples

SITES = ("north", "south")
SHARES = np.array([0.1, 0.1, 0.15, 0.05, 0.15, 0.4, 0.05])

Drawn = tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.str_]]


def draw(n: int, seed: int) -> Drawn:
    """Draw labels, probabilities and sites of lesions; those at one site are harder."""
    rng = np.random.default_rng(seed)
    labels, site = rng.choice(HAM10000.n_classes, n, p=SHARES), rng.choice(SITES, n)
    signal = np.where(site == "north", 3.0, 1.0)[:, None] * np.eye(HAM10000.n_classes)[labels]
    return (
        labels,
        softmax(rng.normal(size=(n, HAM10000.n_classes)) + signal + np.log(SHARES), axis=1),
        site,
    )


def counted(drawn: Drawn) -> tuple[AnswerCounts, dict[str, AnswerCounts]]:
    labels, p, site = drawn
    by_site = {s: AnswerCounts.measure(HAM10000, labels[site == s], p[site == s]) for s in SITES}
    return by_site["north"] + by_site["south"], by_site


def basis_of(drawn: Drawn) -> AnswerBasis:
    return AnswerBasis.of(HAM10000, uncalibrated(HAM10000.n_classes), SHARES, *counted(drawn), None)


@examples(20)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 200), calibration=st.integers(25, 400))
def test_added_counts_say_what_each_lesions_own_answer_adds_up_to(
    seed: int, n: int, calibration: int
) -> None:
    basis, test = basis_of(draw(calibration, seed)), draw(n, seed + 1)
    labels, p, _ = test
    found = performance(basis, *counted(test))
    answering = Answering(basis, AnswerOptions())
    said = answering.answers([""] * n, p, np.full(n, np.nan))
    assert found["lesions"] == n
    _check_sets(found["sets"], answering, test)
    for target in found["screening"]:
        having = np.isin(
            np.array(HAM10000.codes)[labels], ["mel"] if target == "mel" else HAM10000.malignant
        )
        flags = np.array([s.flagged for a in said for s in a.screening if s.target == target])
        told = found["screening"][target]
        for name, rows in (("sensitivity", having), ("specificity", ~having)):
            right = int((flags == having)[rows].sum())
            _check_share(told[name], told[f"{name}_interval"], right, int(rows.sum()))
    _check_referral(found["referral"], labels, p)


def _check_sets(found, answering: Answering, test: Drawn) -> None:
    labels, p, site = test
    own = np.arange(len(labels)), labels
    inside = p >= answering.thresholds().values
    overall = found["overall"]
    _check_share(
        overall["coverage"], overall["coverage_interval"], int(inside[own].sum()), len(labels)
    )
    assert overall["mean_size"] == pytest.approx(inside.sum() / len(labels))
    for c, code in enumerate(HAM10000.codes):
        rows, told = labels == c, found["by_class"][code]
        _check_share(
            told["coverage"], told["coverage_interval"], int(inside[rows, c].sum()), int(rows.sum())
        )
    for name in SITES:
        rows, told = site == name, found["by_site"][name]
        here = (p >= answering.thresholds(name).values)[rows]
        hit = int(here[np.arange(len(here)), labels[rows]].sum())
        _check_share(told["coverage"], told["coverage_interval"], hit, int(rows.sum()))
        assert told["mean_size"] == pytest.approx(
            here.sum() / rows.sum() if rows.any() else np.nan, nan_ok=True
        )


def _check_share(value: float, interval: list[float], hits: int, n: int) -> None:
    if not n:
        assert np.isnan(value)
        return
    expected = binomtest(hits, n).proportion_ci(method="wilson")
    assert value == pytest.approx(hits / n)
    assert interval == pytest.approx([expected.low, expected.high], abs=1e-9)


def _check_referral(found, labels, p) -> None:
    """Compare with the definitions, pair by pair, where confidences are rounded to bins."""
    sure = np.digitize(p.max(axis=1), score_edges(HAM10000.n_classes))
    wrong = (p.argmax(axis=1) != labels).astype(float)
    before = (sure[:, None] > sure) + (sure[:, None] == sure) / 2
    assert found["augrc"] == pytest.approx((wrong @ before).mean() / len(labels))
    assert found["risk_of_all"] == pytest.approx(wrong.mean())
    assert found.keys() == {"augrc", "risk_of_all", "risk_at_80", "risk_at_90"}


def test_without_calibration_lesions_it_says_what_is_lacking() -> None:
    test = draw(50, 0)
    found = performance(
        AnswerBasis.of(HAM10000, uncalibrated(HAM10000.n_classes), SHARES), *counted(test)
    )
    assert found["sets"] is None
    assert found["screening"] == {}
    assert any("no calibration lesions" in warning for warning in found["warnings"])
    _check_referral(found["referral"], *test[:2])
