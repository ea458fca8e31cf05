"""A comparison of arms, as a user asks for it."""

import json

import pytest

from simulations import comparison
from simulations.experiment import simulate
from simulations.report import SYNTHETIC_NOTE
from tests.commands import is_one_error, metrics_of


def test_compare_judges_every_arm_alike(fedderm, synthetic_folder, settings, tmp_path):
    out = tmp_path / "out"
    command = ("compare", synthetic_folder, "--out", out, "--sites", 2, *settings)
    code, shown, _ = fedderm(*command)
    assert code == 0
    report = (out / "report.md").read_text()
    assert shown == f"{report}\nreport: {out / 'report.md'}\n"
    assert report.splitlines()[2] == SYNTHETIC_NOTE
    values = json.loads((out / "report.json").read_text(), parse_constant=pytest.fail)
    assert values["synthetic"] is True
    arms = {arm["name"]: arm for arm in values["arms"]}
    assert list(arms)[:3] == ["pooled", "natural", "dirichlet"]
    assert list(arms)[3:] == [f"alone-synth_{x}" for x in "abcd"]
    assert all(f"| {name} | " in report for name in arms)
    for name in ("pooled", "dirichlet"):
        quality, metrics = arms[name]["quality"], metrics_of(out / "runs" / name)
        assert quality["difference"] < 1e-6
        assert quality["disagreements"] == 0
        # What the sites counted is what the pooled test images say.
        overall = metrics["overall"]
        assert quality["balanced_accuracy"] == pytest.approx(overall["balanced_accuracy"])
        assert quality["macro_auc"] == pytest.approx(overall["macro_auc"], abs=1e-3)
        assert quality["calibration_error"] == pytest.approx(overall["expected_calibration_error"])
        before = metrics["calibration_error_before"]
        assert quality["calibration_error_before"] == pytest.approx(before)
    # A class that a site never saw is no difference of 1e9.
    alone = [arms[f"alone-synth_{x}"]["quality"] for x in "abc"]
    assert all(1e-3 < quality["difference"] < 10 for quality in alone)
    assert all(quality["balanced_accuracy"] < 0.9 for quality in alone)
    # The site with four lesions takes no part, and the report says why.
    assert list(arms["natural"]["left_out"]) == ["synth_d"]
    assert "| natural | 3 of 4 | " in report
    assert "\n- natural: left out synth_d refused: " in report
    assert "| alone-synth_d | 1 | - | " in report
    assert "\n- alone-synth_d: no model. 0 sites are left" in report


def test_a_killed_comparison_goes_on_where_it_was(
    fedderm, synthetic_folder, settings, tmp_path, monkeypatch
):
    trained = []

    def killed(config):
        if len(trained) == 2:
            trained.append("killed")
            config.out.mkdir(parents=True)
            raise KeyboardInterrupt
        trained.append(config.out.name)
        return simulate(config)

    monkeypatch.setattr(comparison, "simulate", killed)
    out = tmp_path / "out"
    command = ("compare", synthetic_folder, "--out", out, "--sites", 2, *settings)
    arms = ("--arms", "dirichlet,pooled")
    assert fedderm(*command)[0] != 0
    assert not (out / "report.md").exists()
    # Arms that were not asked for at first may be, and the others left for another day.
    code, first, _ = fedderm(*command, *arms)
    assert code == 0
    assert trained == ["pooled", "natural", "killed", "dirichlet"]
    code, again, _ = fedderm(*command, *arms)
    assert (code, again) == (0, first)
    assert trained[4:] == []
    rows = [line.split(" | ")[0] for line in first.splitlines() if line.startswith("| ")]
    assert rows[2:] == ["| pooled", "| dirichlet"]
    # How long an arm took is not forgotten, where it was trained in one go.
    seconds = {arm["name"]: arm["cost"]["seconds"] for arm in _arms(out)}
    assert seconds["pooled"] > 0
    assert seconds["dirichlet"] is None
    assert "\n- dirichlet: its seconds are not known, for it was interrupted\n" in first


def test_another_comparison_is_refused_by_what_is_different(
    fedderm, synthetic_folder, settings, tmp_path
):
    command = ("compare", synthetic_folder, "--out", tmp_path / "out", "--arms", "pooled")
    assert fedderm(*command, *settings)[0] == 0
    for changed, reason in (
        (["folds=3"], "whose folds is 2, not 3"),
        (["--sites", "3"], "whose sites is 10, not 3"),
        (["--arms", "pooled,none"], "'none' is no arm; choose from pooled, natural, dirichlet"),
    ):
        refused = fedderm(*command, *settings, *changed)
        assert is_one_error(*refused)
        assert reason in refused[2]


def test_networks_are_compared_by_the_same_arms(fedderm, synthetic_folder, tune, tmp_path):
    out, arms = tmp_path / "out", ("--arms", "pooled,natural")
    code, report, _ = fedderm("compare", synthetic_folder, "--out", out, *arms, *tune)
    assert code == 0
    assert report.splitlines()[2] == SYNTHETIC_NOTE
    header = report.splitlines()[6]
    assert not any(word in header for word in ("| C |", "moments", "largest difference"))
    pooled, natural = _arms(out)
    for arm in (pooled, natural):
        overall = metrics_of(out / "runs" / arm["name"])["overall"]
        quality = arm["quality"]
        assert quality["accuracy"] == pytest.approx(overall["accuracy"])
        assert quality["balanced_accuracy"] == pytest.approx(overall["balanced_accuracy"])
        # The sites' scores are counted in bins.
        assert quality["macro_auc"] == pytest.approx(overall["macro_auc"], abs=5e-3)
        assert quality["calibration_error"] == pytest.approx(overall["expected_calibration_error"])
        assert quality["difference"] is None
    assert pooled["quality"]["gap"] is None
    gap = natural["quality"]["gap"]["balanced_accuracy"]
    means = [arm["quality"]["balanced_accuracy"] for arm in (natural, pooled)]
    assert gap == pytest.approx(means[0] - means[1])
    assert f" | {gap:+.3f} (" in report


def _arms(out):
    return json.loads((out / "report.json").read_text(), parse_constant=pytest.fail)["arms"]


def test_arms_below_the_quorum_are_reported_and_baselines_have_none(
    fedderm, synthetic_folder, settings, tmp_path
):
    """With a timeout of ten minutes: nobody waits for sites that cannot come."""
    out, rules = tmp_path / "out", ("quorum=3", "expected=3")
    code, shown, _ = fedderm(
        "compare", synthetic_folder, "--out", out, "--sites", 2, *settings, *rules
    )
    assert code == 0
    assert "- dirichlet: no model. " in shown
    assert "has 2 of the 3 sites that are needed" in shown
    arms = {arm["name"]: arm for arm in json.loads((out / "report.json").read_text())["arms"]}
    trained = [name for name, arm in arms.items() if not arm["failure"]]
    assert trained == ["pooled", "natural", *(f"alone-synth_{x}" for x in "abc")]


def test_compare_without_any_model_is_a_report_of_reasons(
    fedderm, synthetic_folder, settings, tmp_path
):
    out = tmp_path / "out"
    rules = (*settings, "min_active=1000")
    code, shown, _ = fedderm("compare", synthetic_folder, "--out", out, "--sites", 2, *rules)
    assert code == 0
    assert shown.count(": no model. 0 sites are left in round 'hinge'") == 7


def test_a_comparison_without_test_lesions_is_one_line(
    fedderm, synthetic_folder, settings, tmp_path
):
    out = ("--out", tmp_path / "out")
    refused = fedderm("compare", synthetic_folder, *out, *settings, "test_fraction=0")
    assert is_one_error(*refused)
    assert "raise test_fraction" in refused[2]
