"""A finished model over the sites of a federation: counts that add up to the pooled evaluation."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fairlearn.metrics import MetricFrame
from sklearn.metrics import confusion_matrix, recall_score, roc_auc_score

from common.data.dataset import Dataset
from common.data.splits import TEST
from common.data.tables.ham10000 import write_metadata
from common.features.extract import content_keys
from common.features.store import read_rows, write_shard
from common.models.file import load_model
from common.task import HAM10000
from server.run.folder import CARD_FILE, MODEL_FILE, ROUNDS_FILE
from simulations.runtimes.finished_run import Run
from tests.commands import IID, is_one_error, metrics_of
from tests.simulations.conftest import METADATA, simulated

SITES = ("--scheme", "iid", "--sites", 4)


@pytest.fixture(scope="session")
def seen(cached, synthetic_folder, other) -> list[str]:
    """Write settings by which sites see images as both models do, and keep features for them."""
    spec = cached.feature_spec
    for folder in (synthetic_folder, other):
        rows = read_rows(cached.cache / spec.key, set(content_keys(Dataset.open(folder))))
        alone = {content: row[spec.views :] for content, row in rows.items()}
        write_shard(cached.cache / replace(spec, views=0).key, alone)
    return [f"cache={cached.cache}", "predictions=1", "folds=2", "diagnoses=ham10000"]


@pytest.fixture
def usual(finished, seen) -> list[object]:
    """Write settings that judge the linear model."""
    return ["method=validate", f"model={finished}", *seen]


def _pooled(fedderm, file, data, run, cached):
    """Judge a model on all lesions at once."""
    assert fedderm("evaluate", data, run, f"cache={cached.cache}", "--all", "--out", file)[0] == 0
    return json.loads(file.read_text())


@pytest.mark.parametrize(
    ("trained", "secure"),
    [("finished", False), ("finished", True), ("tuned", False), ("tuned", True)],
)
def test_added_counts_are_those_of_the_pooled_evaluation(
    fedderm, request, other, seen, cached, tmp_path, trained, secure
):
    judged, out = request.getfixturevalue(trained), tmp_path / "validated"
    pooled = _pooled(fedderm, tmp_path / "pooled.json", other, judged, cached)
    size = f"size={load_model(judged / 'run' / MODEL_FILE).config.size}"
    by = "by=sex,age,dx_type,sex*localization" + ("" if secure else ",site")
    settings = ("method=validate", f"model={judged}", *seen, size, f"secure={secure}", by)
    code, _, err = fedderm("simulate", other, "--out", out, *SITES, *settings)
    assert code == 0, err
    found, [expected] = metrics_of(out / "run"), pooled["runs"]
    assert found["overall"]["confusion"] == expected["confusion"]
    assert found["overall"]["n"] == pooled["images"]
    quality = expected["quality"]
    for name in ("accuracy", "balanced_accuracy"):
        assert found["overall"][name] == pytest.approx(quality[name])
    assert found["overall"]["macro_auc"] == pytest.approx(quality["macro_auc"], abs=2e-3)
    error = found["overall"]["expected_calibration_error"]
    assert error == pytest.approx(quality["calibration_error"], abs=1e-6)
    assert len(found["sites"]) == (0 if secure else 4)
    if not secure:
        parts = np.sum([site["confusion"] for site in found["sites"].values()], axis=0)
        assert parts.tolist() == expected["confusion"]
    _check_groups(found["groups"], judged, other, cached, out / "sites")
    counted = found["answers"]["referral"]["augrc"]
    assert 0 <= counted <= 0.5
    card = (out / "run" / CARD_FILE).read_text()
    assert "external validation of the model" in card
    assert "no training" in card
    assert "whether the model was trained on lesions of these sites" in card
    assert "## Training" not in card
    assert "| dx_type | lesions | images |" in card
    # The model is the same, and the run is read as any other.
    assert Run.read(out).method == "validate"
    first, copy = ((place / "run" / MODEL_FILE).read_bytes() for place in (judged, out))
    assert first == copy


@pytest.fixture(scope="session")
def late(synthetic_folder, tune, tmp_path_factory) -> Path:
    """Fine-tune with metadata beside the features; return the folder given to ``--out``."""
    own = [*tune, METADATA, "fusion=late"]
    return simulated(synthetic_folder, tmp_path_factory.mktemp("late") / "out", own)


@pytest.mark.parametrize(
    ("judged", "changes"),
    [
        ("informed", ()),
        ("informed", ("secure=true",)),
        ("informed", ("without_metadata=true",)),
        ("late", ()),
        ("late", ("without_metadata=true",)),
    ],
)
def test_a_model_with_metadata_is_judged_with_what_sites_know(
    fedderm, request, other, seen, cached, tmp_path, judged, changes
):
    run, out = request.getfixturevalue(judged), tmp_path / "validated"
    shown, file = ("evaluate", other, run, f"cache={cached.cache}", "--all"), tmp_path / "p.json"
    assert fedderm(*shown, "--without-metadata", "--out", file)[0] == 0
    runs = json.loads(file.read_text())["runs"]
    expected = runs["without_metadata=true" in changes]
    assert runs[0]["confusion"] != runs[1]["confusion"]
    trained = load_model(run / "run" / MODEL_FILE).config
    fusion = (f"fusion={trained.fusion}",) if judged == "late" else ()
    own = ("method=validate", f"model={run}", *seen, f"size={trained.size}", METADATA, *fusion)
    code, _, err = fedderm("simulate", other, "--out", out, *SITES, *own, *changes)
    assert code == 0, err
    found = metrics_of(out / "run")["overall"]
    assert found["confusion"] == expected["confusion"]
    assert found["balanced_accuracy"] == pytest.approx(expected["quality"]["balanced_accuracy"])
    card = (out / "run" / CARD_FILE).read_text()
    left_out = "as if age, sex, localization were not known"
    assert (left_out in card) == ("without_metadata=true" in changes)


def test_a_site_without_a_column_counts_its_patients_as_unknown_and_says_so(
    fedderm, informed, other, seen, cached, tmp_path, caplog
):
    out, again = tmp_path / "first", tmp_path / "again"
    own = ("method=validate", f"model={informed}", *seen, METADATA)
    assert fedderm("simulate", other, "--out", out, *IID, *own)[0] == 0
    first, *_ = sites = _folders(out / "sites")
    write_metadata(first, (replace(row, age=None) for row in Dataset.open(first).images))
    caplog.clear()
    places = (out / "sites", "--out", again, "--scheme", "folders")
    code, _, err = fedderm("simulate", *places, *own)
    assert code == 0, err
    model = load_model(informed / "run" / MODEL_FILE)
    counts = 0
    for site in sites:
        dataset = Dataset.open(site).for_task(HAM10000)
        called = model.basis.decide(model.dataset_scores(dataset, cached.cache))
        counts = counts + confusion_matrix(dataset.labels, called, labels=range(7))
    found = metrics_of(again / "run")["overall"]["confusion"]
    assert found == counts.tolist() != metrics_of(out / "run")["overall"]["confusion"]
    n = len(Dataset.open(first).for_task(HAM10000))
    assert f"metadata 'age' is unknown in {n} of {n} images" in caplog.text
    [note] = json.loads((again / "run" / ROUNDS_FILE).read_text().splitlines()[0])["notes"]
    assert f"metadata 'age' is unknown in most images of {first.name}, which are" in note


def _check_groups(found, judged, data, cached, sites):
    """Compare groups with fairlearn's, of all images at once, by the table's own words."""
    model = load_model(judged / "run" / MODEL_FILE)
    dataset = Dataset.open(data).for_task(HAM10000)
    scores = model.dataset_scores(dataset, cached.cache)
    p, called = model.basis.probabilities(scores), model.basis.decide(scores)
    malignant = np.isin(np.array(HAM10000.codes)[dataset.labels], HAM10000.malignant)
    chance = p[:, np.isin(HAM10000.codes, HAM10000.malignant)].sum(axis=1)
    known = {
        "images": (lambda t, q: len(t), malignant, called),
        "lesions": (lambda t, q: len(set(q)), malignant, dataset.lesions),
        "balanced_accuracy": (_mean_recall, dataset.labels, called),
        "auc": (_area, malignant, chance),
    }
    rows = dataset.images
    words = {
        "sex": [_word(row.sex) for row in rows],
        "age": [_decade(row.age) for row in rows],
        "dx_type": ["other"] * len(rows),
        "sex*localization": [f"{_word(row.sex)} * {_word(row.localization)}" for row in rows],
    }
    if "site" in found:
        held = {i.image_id: f.name for f in _folders(sites) for i in Dataset.open(f).images}
        words["site"] = [held[row.image_id] for row in rows]
    assert found.keys() == words.keys()
    for dimension, groups in words.items():
        assert found[dimension].keys() == set(groups)
        for name, (metric, truth, said) in known.items():
            frame = MetricFrame(
                metrics=metric, y_true=truth, y_pred=said, sensitive_features=np.array(groups)
            ).by_group
            for group in set(groups):
                value = found[dimension][group][name]
                value = np.nan if value is None else value
                close = pytest.approx(
                    frame[group], abs=3e-2 if name == "auc" else 1e-9, nan_ok=True
                )
                assert value == close, (dimension, group, name)


def _mean_recall(truth, said):
    return recall_score(truth, said, labels=np.unique(truth), average="macro")


def _word(text):
    return "missing" if text in ("", "unknown") else text


def _area(truth, chance):
    return roc_auc_score(truth, chance) if 0 < truth.sum() < len(truth) else np.nan


def _decade(age):
    return "missing" if age is None else f"{age // 10 * 10:.0f} to {age // 10 * 10 + 9:.0f}"


def test_held_out_lesions_alone_are_judged_where_asked(
    fedderm, synthetic_folder, usual, finished, tmp_path
):
    """On the model's own sites: what its own run counted there."""
    out = tmp_path / "validated"
    places = (finished / "sites", "--out", out, "--scheme", "folders")
    code, _, err = fedderm("simulate", *places, *usual, "lesions=test")
    assert code == 0, err
    found, own = metrics_of(out / "run"), metrics_of(finished / "run")
    assert found["overall"] == own["overall"]
    assert found["sites"] == own["sites"]
    assert found["calibration_error_before"] == own["calibration_error_before"]
    assert found["answers"] == own["answers"]
    tested = sum(np.sum(Dataset.open(site).splits == TEST) for site in _folders(finished / "sites"))
    assert found["overall"]["n"] == tested


def test_a_model_that_cannot_be_judged_is_refused_before_a_site_is_asked(
    fedderm, other, usual, finished, tuned, informed, tmp_path
):
    method, model, *seen = usual
    codes = ",".join(HAM10000.codes)
    for settings, reason in (
        ([method, *seen], "no model to judge; set model=RUN"),
        ([method, f"model={informed}", *seen], "; set metadata=age,sex,localization"),
        ([method, "model=none", *seen], "none holds no finished run"),
        ([method, f"model={tuned}", *seen], f"{tuned} was trained with other settings; set size="),
        ([*usual, "resolution=100"], "; set resolution="),
        ([*usual, "views=1"], "'views' is 1, but augmented views are for training"),
        ([*usual, "size=64"], f"{finished} was trained with other settings; set size=224"),
        ([*usual, "predictions=2", "levels=0"], "; set levels=3 predictions=1"),
        ([*usual[:-1], "diagnoses=binary"], f"; set diagnoses={codes} "),
        ([*usual, METADATA], "; set metadata="),
        ([*usual, "without_metadata=true"], f"but {finished} takes no metadata"),
        ([*usual, "metadata_dropped=0"], "augmented views are for training"),
        ([*usual, "head=lda"], "'head' is lda, but the model to judge has its own"),
        (["method=svm", model], "'model' is "),
        (["method=svm", "by=sex"], "'by' is sex, but "),
        ([*usual, "by=age:40"], "sets edges of ages, but hospitals count ages by decades"),
        ([*usual, "by=sex*site"], "'sex*site' crosses sites, but groups are added over them"),
        ([*usual, "by=age*localization"], "groups, at most 160 are counted; name fewer"),
        ([*usual, "by=tone"], "no groups by 'tone'; known are "),
        ([*usual, "by=site", "secure=true"], "'by' is site, but secure sums are known over all"),
    ):
        out = tmp_path / "none"
        refused = fedderm("simulate", other, "--out", out, *SITES, *settings)
        assert is_one_error(*refused), refused
        assert reason in refused[2]
        assert not out.exists()


def test_a_validated_site_is_not_mistaken_for_what_the_model_was_trained_on(
    fedderm, other, usual, cached, tmp_path
):
    out, file = tmp_path / "validated", tmp_path / "figures.json"
    assert fedderm("simulate", other, "--out", out, *SITES, *usual)[0] == 0
    cache = f"cache={cached.cache}"
    assert fedderm("evaluate", other, out, cache, "--all", "--out", file)[0] == 0
    assert json.loads(file.read_text())["selection"]["unchecked"] == [str(out)]


def _folders(sites):
    return sorted(path for path in sites.iterdir() if path.is_dir())


def test_a_private_model_is_judged_as_any_other(
    fedderm, synthetic_folder, other, seen, cached, tmp_path
):
    trained, out = tmp_path / "private", tmp_path / "validated"
    plan = ("method=private", "epsilon=8", "components=16", "steps=5", "test_fraction=0.3")
    code, _, err = fedderm(
        "simulate", synthetic_folder, "--out", trained, *SITES, *seen, "views=1", *plan
    )
    assert code == 0, err
    judged = ("method=validate", f"model={trained}", *seen)
    code, _, err = fedderm("simulate", other, "--out", out, *SITES, *judged)
    assert code == 0, err
    [expected] = _pooled(fedderm, tmp_path / "pooled.json", other, trained, cached)["runs"]
    assert metrics_of(out / "run")["overall"]["confusion"] == expected["confusion"]
