"""A study as a user asks for it: real cells in processes of their own, on synthetic images."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics

from common.answers.answer import TARGETS
from common.answers.answering import Answering, AnswerOptions
from common.data.dataset import Dataset
from common.models.file import load_model
from common.synthetic_note import SYNTHETIC_NOTE
from common.task import HAM10000
from server.run.folder import MODEL_FILE
from simulations.evaluation.measures import CALIBRATION_ERRORS
from simulations.experiments import answers as bench
from simulations.study.advice import advise
from simulations.study.cells import arms, cut, plan
from simulations.study.definition import Study
from simulations.study.judging.predictions import Predictions
from simulations.study.report import __main__ as again
from simulations.study.report.tables.sites import site_tables
from simulations.study.report.values import from_values, to_values
from simulations.study.training.schedule import FAILURE_FILE, failure
from simulations.study.training.train_cell import PREDICTIONS_FILE
from tests.charts import texts_of
from tests.commands import is_one_error


def _json(out):
    return json.loads((out / "report.json").read_text(), parse_constant=pytest.fail)


def test_numbers_are_those_of_scikit_learn_on_the_saved_predictions(studied):
    values = _json(studied.out)
    judged = 0
    for arm in values["arms"]:
        folds = [_predictions(studied.out, arm, int(fold)) for fold in arm.get("cells", {})]
        for name, single in _by_scikit_learn(folds).items():
            found = arm["metrics"][name]
            assert found["folds"] == pytest.approx(single, abs=1e-9), name
            assert found["mean"] == pytest.approx(np.mean(single), abs=1e-9)
            assert found["sd"] == pytest.approx(np.std(single, ddof=1), abs=1e-9)
            assert found["low"] <= found["mean"] <= found["high"]
            judged += 1
        if folds:
            label = np.concatenate([fold["label"] for fold in folds])
            predicted = np.concatenate([fold["predicted"] for fold in folds])
            matrix = metrics.confusion_matrix(label, predicted, labels=range(len(HAM10000.codes)))
            assert arm["confusion"] == matrix.tolist()
            assert matrix.sum() == values["about"]["images"]
    assert judged > 20


def _predictions(out, arm, fold):
    share = "" if arm["scale"] == 1 else f"_{arm['scale']:.0%}".replace("%", "pc")
    data = f"{arm['site']}_alone" if arm["site"] else arm["spread"]
    folder = out / "cells" / f"{arm['route']}_{data}{share}_fold_{fold}"
    with np.load(folder / "predictions.npz", allow_pickle=False) as arrays:
        return dict(arrays)


def _by_scikit_learn(folds):
    found: dict[str, list[float]] = {}
    for fold in folds:
        label, predicted, p = (fold[k] for k in ("label", "predicted", "probabilities"))
        present = np.unique(label)
        areas = [metrics.roc_auc_score(label == c, p[:, c]) for c in present]
        precisions = [metrics.average_precision_score(label == c, p[:, c]) for c in present]
        single = {
            "accuracy": metrics.accuracy_score(label, predicted),
            "balanced_accuracy": metrics.balanced_accuracy_score(label, predicted),
            "macro_f1": metrics.f1_score(label, predicted, labels=present, average="macro"),
            "macro_auc": np.mean(areas),
            "macro_average_precision": np.mean(precisions),
            "brier": metrics.brier_score_loss(label, p, labels=range(len(HAM10000.codes))),
        }
        for name, value in single.items():
            found.setdefault(name, []).append(value)
    return found


def test_sets_are_judged_by_lesion_and_are_those_that_a_prediction_shows(studied):
    values = _json(studied.out)
    judged = 0
    for arm in values["arms"]:
        folds = [_predictions(studied.out, arm, int(fold)) for fold in arm.get("cells", {})]
        if not folds or np.isnan(np.concatenate([fold["inside"] for fold in folds])).any():
            assert not arm.get("coverage")
            continue
        single = [_by_lesion(fold) for fold in folds]
        for name in ("coverage", "set_size"):
            found = arm["metrics"][name]
            assert found["folds"] == pytest.approx([s[name] for s in single], abs=1e-9)
            assert found["low"] <= found["mean"] <= found["high"]
        for groups in arm["coverage"].values():
            assert all(g["low"] <= g["value"] <= g["high"] for g in groups.values())
            assert sum(g["lesions"] for g in groups.values()) <= values["about"]["lesions"] + 1e-4
        held = sum(g["value"] * g["lesions"] for g in arm["coverage"]["diagnosis"].values())
        assert held == pytest.approx(sum(s["coverage"] * s["lesions"] for s in single), abs=1e-3)
        assert set(arm["coverage"]["site"]) == set(arm["sites"])
        assert arm["referral"]["risk"][-1] == pytest.approx(
            np.average([s["risk"] for s in single], weights=[s["lesions"] for s in single])
        )
        judged += 1
    assert judged >= 3
    folder = studied.out / "cells" / "svm_pooled_fold_0"
    model, kept = (
        load_model(folder / "run" / MODEL_FILE),
        Predictions.load(folder / PREDICTIONS_FILE),
    )
    answering = Answering(model.basis, AnswerOptions())
    said = answering.answers(kept.image, kept.probabilities, np.full(len(kept.image), np.nan))
    for row, answer in enumerate(said):
        inside = {HAM10000.codes[c] for c in np.flatnonzero(kept.inside[row])}
        assert inside == set(answer.prediction_set.diagnoses)
        flagged = dict(zip(TARGETS, kept.flagged[row], strict=True))
        assert {s.target: s.flagged for s in answer.screening} == {
            target: bool(flag) for target, flag in flagged.items() if not np.isnan(flag)
        }


def test_the_study_says_what_other_thresholds_and_frequencies_would_have_given(studied):
    """The table of thresholds has the study's own sets, and pooled ones that are smaller."""
    folds = bench.read(studied.out)["svm natural"]
    rows = [line.split(" | ") for line in bench.thresholds_table(folds).splitlines()[2:]]
    coverage, size = {r[0][2:]: r[1] for r in rows}, {r[0][2:]: float(r[2]) for r in rows}
    arm = next(arm for arm in _json(studied.out)["arms"] if arm["name"] == "svm natural")
    groups = arm["coverage"]["diagnosis"].values()
    held = sum(g["value"] * g["lesions"] for g in groups) / sum(g["lesions"] for g in groups)
    assert coverage["everywhere"] == f"{held:.3f}"
    assert size["pooled"] <= size["everywhere"]
    assert size["by class"] <= size["everywhere"] <= len(HAM10000.codes)
    unchanged, *_ = bench.prevalence_table(folds).splitlines()[2:]
    _, base, estimated, _, before, _ = unchanged.strip("| ").split(" | ")
    assert float(base) < 0.15
    assert 0 <= float(estimated) <= 1
    kept = [fold.kept for fold in folds]
    right = np.mean([(k.probabilities.argmax(axis=1) == k.label).mean() for k in kept])
    assert float(before) == pytest.approx(right, abs=0.05)  # by lesion there, by image here


def _by_lesion(fold):
    """Judge each lesion by the mean over its images, one after the other."""
    found: dict[str, list[float]] = {"coverage": [], "set_size": [], "risk": []}
    for lesion in np.unique(fold["lesion"]):
        rows = np.flatnonzero(fold["lesion"] == lesion)
        label, inside = fold["label"][rows[0]], fold["inside"][rows]
        found["coverage"].append(inside[:, label].mean())
        found["set_size"].append(inside.sum(axis=1).mean())
        found["risk"].append((fold["probabilities"][rows].argmax(axis=1) != label).mean())
    means = {name: float(np.mean(values)) for name, values in found.items()}
    return {**means, "lesions": len(found["risk"])}


def test_every_arm_is_there_and_says_what_it_lacks(studied):
    values, shown = _json(studied.out), (studied.out / "report.md").read_text()
    study, dataset = Study.read(studied.file), Dataset.open(studied.data)
    assert [arm["name"] for arm in values["arms"]] == [arm.name for arm in arms(study, dataset)]
    # The site with four lesions can train no SVM; its arm has failed, and the others stand.
    failed = {arm["name"]: arm["failures"] for arm in values["arms"] if arm["failures"]}
    assert list(failed) == ["svm synth_d alone"]
    for reason in failed["svm synth_d alone"].values():
        assert "synth_d " in reason
        assert f"failed: {reason}" in shown
    natural = next(arm for arm in values["arms"] if arm["name"] == "svm natural")
    for cell in natural["cells"].values():
        assert list(cell["left_out"]) == ["synth_d"]
    assert "| linear SVM, 4 sites | 0 | left out: synth_d " in shown


def test_models_by_sites_are_judged_on_held_out_lesions_alone(studied):
    """Each cell is scikit-learn's of the folds' test images that the site holds."""
    values = _json(studied.out)
    findings = from_values(values)
    accuracies, *others = site_tables(findings)
    assert [len(table.rows) for table in others] == 2 * [len(accuracies.rows)]
    judged = own = 0
    for result, arm in zip(findings.arms, values["arms"], strict=True):
        if not result.sites or result.arm.scale < 1:
            continue
        folds = [_predictions(studied.out, arm, fold) for fold in result.cells]
        said = {name: np.concatenate([fold[name] for fold in folds]) for name in folds[0]}
        route, way = findings.names.routes[result.arm.route], findings.names.way(result.arm)
        row = next(r for r in accuracies.rows if r[0].startswith(route) and way in r[0])
        for title, cell, site in zip(
            accuracies.header[1:], row[1:], np.unique(said["source"]), strict=True
        ):
            rows = said["source"] == site
            label, called = said["label"][rows], said["predicted"][rows]
            lesions, present = len(set(said["lesion"][rows])), np.unique(label)
            assert title == (
                f"{site}, {rows.sum()} images of {lesions} lesions, {len(present)} diagnoses"
            )
            recall = metrics.recall_score(
                label, called, labels=present, average="macro", zero_division=0
            )
            assert cell.startswith(f"{100 * recall:.1f}")
            assert cell.endswith(" *") == (result.arm.site == site)
            judged, own = judged + 1, own + (result.arm.site == site)
    assert judged >= 4 * 6
    assert own == 3


def test_the_federated_svm_is_equal_within_the_margin(studied):
    """Over Dirichlet sites that all take part it is the pooled one, but for rounding."""
    pairs = {(c["first"], c["second"]): c for c in _json(studied.out)["comparisons"]}
    same = pairs["svm dirichlet", "svm pooled"]
    assert same["difference"] == 0
    assert same["p"] == 1
    assert same["p_equivalent_adjusted"] < 0.05
    assert same["verdict"] == "equal within 10 points"
    assert ("net pooled", "svm pooled") in pairs
    families = [c["family"] for c in pairs.values()]
    assert set(families) == {"against pooled data", "between routes", "against all diagnoses"}
    lacking = [pair for pair, c in pairs.items() if c["family"] == "against all diagnoses"]
    assert lacking == [("svm few", "svm dirichlet")]
    shown = (studied.out / "report.md").read_text()
    assert (
        "| linear SVM, 3 uneven sites, 25% unlabelled minus linear SVM, 3 uneven sites |" in shown
    )


def test_costs_are_told_for_every_arm_and_route(studied):
    values = _json(studied.out)
    for arm in values["arms"]:
        if "cost" in arm:
            cost = arm["cost"]
            assert all(cost[key] > 0 for key in ("features", "training", "wall", "up", "down"))
            assert cost["waiting"] >= 0
            assert 50e6 < cost["peak_memory"] < 5e9
            assert cost["computing"] >= cost["features"] + cost["training"]
    assert set(values["routes"]) == {"svm", "net"}
    for route in values["routes"].values():
        assert route["latency"]["1"] > 0
        assert route["latency"]["32"] > route["latency"]["1"]


def test_the_report_is_whole_and_says_what_it_is_made_of(studied):
    values, page = _json(studied.out), (studied.out / "report.html").read_text()
    first, *_ = (studied.out / "report.md").read_text().splitlines()
    assert first == SYNTHETIC_NOTE
    body = page.partition("<body>")[2]
    assert body.index(SYNTHETIC_NOTE.strip("*")) < body.index("<main")
    about = values["about"]
    assert about["synthetic"] is True
    assert about["command"].startswith("fedderm compare ")
    for told in (about["command"], about["fingerprint"], *about["versions"].values()):
        assert told in page
    charts = re.findall(
        r'<svg [^>]*role="img" .*?<title id="[\w-]+">(.*?)</title>', page, re.DOTALL
    )
    assert charts == [
        "Learning curves",
        "ROC by diagnosis",
        "Reliability",
        "By site",
        "Coverage of prediction sets",
        "Gaps between groups",
        "Referral",
        "Cost against quality",
    ]
    assert "federated, 3 uneven sites, 25% unlabelled" in texts_of(studied.out / "arms.svg")
    with (studied.out / "report.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    listed = {tuple(row.values())[:4]: row["value"] for row in rows}
    assert len(listed) == len(rows)
    pooled = next(arm for arm in values["arms"] if arm["name"] == "svm pooled")
    assert _impossible(pooled["reliability_of_most_likely"]) == 0
    mean = pooled["metrics"]["balanced_accuracy"]["mean"]
    assert float(listed["arm", "svm pooled", "balanced_accuracy", "mean"]) == mean


def _impossible(bins):
    """Count images whose most likely of seven classes has a probability below a seventh."""
    highest = int(len(bins["images"]) / len(HAM10000.codes))
    return sum(bins["images"][:highest])


def test_the_page_is_written_anew_from_its_numbers(studied, tmp_path):
    shutil.copy(studied.out / "report.json", tmp_path)
    again.main(tmp_path / "report.json")
    for name in ("report.html", "report.md"):
        assert (tmp_path / name).read_text() == (studied.out / name).read_text()
    values = json.loads((tmp_path / "report.json").read_text())
    findings = from_values(values)
    made = to_values(findings, findings.about, advise(findings))
    assert json.loads(json.dumps(made)) == values


def test_a_calibration_error_lies_in_its_interval(studied):
    """Though those of resamples are larger on average."""
    judged = 0
    for arm in _json(studied.out)["arms"]:
        places = [arm, *arm["sites"].values()] if "metrics" in arm else []
        for found in (
            place["metrics"][metric] for place in places for metric in CALIBRATION_ERRORS
        ):
            value = found.get("mean", found.get("value"))
            if found["low"] is not None:  # at a site of one diagnosis nothing is resampled
                assert found["low"] <= value <= found["high"]
                judged += 1
    assert judged > 40


def test_no_run_of_a_cell_has_seen_its_test_lesions(studied):
    """By the rows that its sites were given, which are kept while it is trained."""
    study, dataset = Study.read(studied.file), Dataset.open(studied.data)
    for cell in plan(study, dataset):
        found = cut(study, dataset, cell)
        folder = studied.out / "cells" / cell.name
        if (folder / "result.json").exists():
            told = json.loads((folder / "run" / "metrics.json").read_text())
            images = sum(site["images"] for site in told["data"]["sites"].values())
            assert images <= len(found.training)
            assert told["overall"]["n"] == 0  # no test image was there to be scored
            assert not (folder / "sites").exists()


def test_a_stopped_study_goes_on_with_what_is_not_done(studied, tmp_path):
    """One cell is killed, then all is stopped; what failed is tried again."""
    out = tmp_path / "out"
    shutil.copytree(studied.out, out)
    lost = ["svm_pooled_fold_0", "svm_natural_fold_1"]
    for name in lost:
        shutil.rmtree(out / "cells" / name)
    kept = out / "cells" / "svm_pooled_fold_1" / "result.json"
    before = kept.stat().st_mtime_ns
    command = [sys.executable, "-c", "from simulations.cli.main import main; main()"]
    command += map(str, studied.arguments(out))
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    first, second = (out / "cells" / name for name in lost)
    _until(lambda: _processes(first), process)
    os.kill(_processes(first)[0], signal.SIGKILL)
    _until(lambda: (first / "failure.txt").exists(), process)
    assert (first / "failure.txt").read_text() == "ended by SIGKILL, perhaps for want of memory"
    _until(lambda: _processes(second), process)
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert process.returncode == 128 + signal.SIGTERM
    assert not _processes(out / "cells")
    assert not (second / "result.json").exists()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert kept.stat().st_mtime_ns == before
    told = re.findall(r"(\d+) of 20 cells, about \S+ \S+ left\. (\w+): (done|FAILED)", done.stderr)
    failed = [f"svm_synth_d_alone_fold_{fold}" for fold in range(2)]
    assert sorted(name for _, name, _ in told) == sorted([*lost, *failed])
    assert {name for _, name, how in told if how == "FAILED"} == set(failed)
    assert told[-1][0] == "20"
    assert _metrics(out) == _metrics(studied.out)


def _processes(folder):
    """Return the numbers of the processes that train a cell in a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it ended meanwhile
            if f"train_cell\0{folder}".encode() in (process / "cmdline").read_bytes():
                found.append(int(process.name))
    return found


def _until(condition, process):
    """Wait for what a running process brings about."""
    while not condition():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


def _metrics(out):
    return {arm["name"]: arm.get("metrics") for arm in _json(out)["arms"]}


def test_an_unfinished_study_is_reported_as_it_is(studied, fedderm, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(studied.out, out)
    shutil.rmtree(out / "cells" / "net_pooled_fold_1")
    shutil.rmtree(out / "cells" / "svm_pooled_fold_0" / "run")  # not needed for a report
    code, shown, _ = fedderm(*studied.arguments(out), "--jobs", 0)
    assert code == 0
    assert "| fine-tuning, pooled | 1 | not run yet |" in shown
    values = {arm["name"]: arm for arm in _json(out)["arms"]}
    assert values["net pooled"]["missing"] == [1]
    assert len(values["net pooled"]["metrics"]["accuracy"]["folds"]) == 1
    pair = next(c for c in _json(out)["comparisons"] if c["first"] == "net pooled")
    assert pair["folds"] == 1


def test_a_failure_without_words_is_one_too(tmp_path):
    assert failure(tmp_path) is None
    (tmp_path / FAILURE_FILE).write_text("")
    assert failure(tmp_path) is not None


def test_arms_may_be_added_but_what_cells_rest_on_stays(studied, fedderm, tmp_path):
    out, file = tmp_path / "out", tmp_path / "study.toml"
    shutil.copytree(studied.out, out)
    asked = [file if a == studied.file else a for a in studied.arguments(out)]
    text = studied.file.read_text()
    grown = text.replace(
        'route = "net"\nspreads = ["pooled"]', 'route = "net"\nspreads = ["pooled", "alike"]'
    ).replace("[spreads]", '[spreads]\nalike = { scheme = "dirichlet", sites = 2, alpha = 50 }')
    file.write_text(grown)
    code, shown, _ = fedderm(*asked, "--jobs", 0)
    assert code == 0
    assert "| fine-tuning, 2 uneven sites | 0 | not run yet |" in shown
    before = _metrics(studied.out)
    assert {name: found for name, found in _metrics(out).items() if name in before} == before
    file.write_text(text)  # without the arm; its cells may be there, so its spread is remembered
    assert fedderm(*asked, "--jobs", 0)[0] == 0
    for old, new, reason in (
        ("sites = 2, alpha = 50", "sites = 2, alpha = 5", "spread alike is {'scheme': "),
        ("lr = [0.01]", "lr = [0.02]", "route net is {'method': 'finetune', "),
        ("folds = 2\n", "folds = 3\n", "folds is 2, not 3; start it as it was"),
        ("margin = 0.1", "margin = 0.2", "margin is 0.1, not 0.2; start it as it was"),
    ):
        assert old in grown
        file.write_text(grown.replace(old, new, 1))
        refused = fedderm(*asked, "--jobs", 0)
        assert is_one_error(*refused)
        assert f"holds a study whose {reason}" in refused[2]
    for damaged in ("{}", "[]", "{"):
        (out / "study.json").write_text(damaged)
        refused = fedderm(*asked, "--jobs", 0)
        assert is_one_error(*refused)
        assert "study.json cannot be read; name a new folder" in refused[2]


def test_mistakes_are_one_line_before_anything_is_trained(studied, fedderm, tmp_path):
    text = studied.file.read_text()
    changed = tmp_path / "changed.toml"
    for old, new, reason in (
        ("folds = 2", "folds = 50", "'folds' is 50, but "),
        ('route = "net"', 'route = "nets"', "unknown route 'nets' in arms"),
        ("margin = 0.1", "margn = 0.1", "unknown key 'margn'"),
        ("sites = 3", "sites = 500", "too few for 500 sites"),
        ("0.25", "{ nowhere = 1 }", "spread few: 'unlabelled' names 'nowhere'; the sites are s"),
        ("0.25", "1.5", "key 'spreads.few.unlabelled"),
    ):
        assert old in text
        changed.write_text(text.replace(old, new, 1))
        out = tmp_path / "out"
        refused = fedderm("compare", studied.data, "--out", out, "--study", changed)
        assert is_one_error(*refused)
        assert reason in refused[2]
        assert not out.exists()
    refused = fedderm(*studied.arguments(tmp_path / "empty"), "--jobs", 0)
    assert is_one_error(*refused)
    assert "has a model: none ran" in refused[2]
