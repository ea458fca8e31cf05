"""The first screen says what the figures say, whatever a study has and lacks."""

import re
from dataclasses import replace
from itertools import combinations

import pytest

from simulations.study.headline import headline
from simulations.study.report.charts.dotplot import dot_plot
from simulations.study.report.page import write_pages
from tests.simulations.arms import make_arm, make_findings

LESIONS = 240


@pytest.fixture(scope="module")
def everything():
    """Return the findings of a study with all kinds of arms; the best is federated."""
    arms = [
        make_arm("svm", 0.70, LESIONS, classes=6),
        make_arm("svm", 0.70, LESIONS, classes=6, spread="natural"),
        make_arm("svm", 0.40, LESIONS, classes=6, spread="alone", site="a"),
        make_arm("net", 0.80, LESIONS, classes=6),
        make_arm("net", 0.90, LESIONS, classes=6, spread="natural"),
        make_arm("secret", 0.50, LESIONS, classes=6, spread="natural"),
    ]
    return make_findings(arms, {"svm": 0.02, "net": 0.05, "secret": 0.02})


def _only(findings, names):
    """Leave out the arms that have other names, and what was compared with them."""
    return replace(
        findings,
        arms=[r for r in findings.arms if r.arm.name in names],
        comparisons=[c for c in findings.comparisons if {c.first, c.second} <= set(names)],
    )


def test_a_study_with_everything(everything):
    first = headline(everything)
    assert re.fullmatch(
        r"Fine-tuning federated over 1 site reaches the highest balanced accuracy, "
        r"[\d.]+ points \([\d.]+ to [\d.]+\): [\d.]+ \([\d.]+ to [\d.]+\) better than pooled data "
        r"and [\d.]+ above the best site alone \(linear SVM at a\)\.",
        first.answer,
    )
    melanoma, cost, privacy = first.tiles
    top = next(r for r in everything.arms if r.arm.name == "net natural")
    assert melanoma.value == f"{100 * top.metrics['melanoma_sensitivity'].mean:.1f} points"
    assert cost.value == "0.033 min, 0.003 MB"
    assert privacy.text.endswith("; private linear (ε = 3) against linear SVM, 1 site")
    assert privacy.value.startswith("-")


def test_whatever_is_left_out_the_highest_is_that_of_the_plot(everything):
    names = [r.arm.name for r in everything.arms]
    for size in range(1, len(names) + 1):
        for kept in combinations(names, size):
            findings = _only(everything, kept)
            first, plot = headline(findings), dot_plot(findings)
            rows = [row for group in plot.groups for row in group.rows]
            highest = max(float(row.value) for row in rows)
            assert f" {highest} points" in first.answer
            assert plot.groups[0].rows[0].value == f"{highest}"
            assert ("the highest" in first.answer) == (len(rows) > 1)
            assert ("pooled data" in first.answer) <= any("pooled" in name for name in kept)
            assert ("above the best site alone" in first.answer) <= ("svm a alone" in kept)
            untried = "secret natural" not in kept
            assert (first.tiles[2].value == "not tried") == untried
            assert all(0 <= row.low <= row.mean <= row.high <= 100 for row in rows)


def test_pooled_data_may_be_the_best_or_the_same(everything):
    pooled = headline(_only(everything, ["svm pooled", "svm natural", "svm a alone"])).answer
    assert ", the same on pooled data and federated over 1 site: " in pooled
    better = headline(_only(everything, ["net pooled", "svm natural"])).answer
    assert better.startswith("Fine-tuning on pooled data reaches the highest")
    alone = headline(_only(everything, ["svm a alone", "svm pooled"])).answer
    assert alone.startswith("Linear SVM on pooled data reaches the highest")


def test_what_was_not_measured_is_said(tmp_path):
    """Three diagnoses without melanoma, no costs, a fold that failed, one site alone."""
    arms = [
        make_arm("svm", 0.7, spread="alone", site="a"),
        make_arm("net", 0.6, answers=False),
    ]
    arms[1] = replace(arms[1], failures={1: "out of memory"})
    findings = make_findings(arms, {})
    first = headline(findings)
    assert first.answer.startswith("Linear SVM at a alone reaches the highest balanced accuracy")
    assert first.answer.endswith(") at most (fine-tuning, pooled).")
    assert [tile.value for tile in first.tiles] == ["not measured", "not measured", "not tried"]
    assert "; 1 of the trainings gave no model; " in first.limits
    write_pages(tmp_path, findings, {**findings.about, "command": "fedderm compare"})
    page = (tmp_path / "report.html").read_text()
    assert "failed: out of memory" in page
    assert "No sets: the models of fine-tuning, pooled have no calibration lesions" in page
    assert not re.search(r"\bnan\b", page)
