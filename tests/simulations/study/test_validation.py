"""A finished model over the sites of a federation: counts that add up to the pooled evaluation."""

import json
from dataclasses import replace

import numpy as np
import pytest

from common.data.dataset import Dataset
from common.data.splits import TEST
from common.features.extract import content_keys
from common.features.store import read_rows, write_shard
from common.models.file import load_model
from common.task import HAM10000
from server.run.folder import CARD_FILE, MODEL_FILE
from simulations.runtimes.finished_run import Run
from tests.commands import is_one_error, metrics_of

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
    settings = ("method=validate", f"model={judged}", *seen, size, f"secure={secure}")
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
    counted = found["answers"]["referral"]["augrc"]
    assert 0 <= counted <= 0.5
    card = (out / "run" / CARD_FILE).read_text()
    assert "external validation of the model" in card
    assert "no training" in card
    assert "whether the model was trained on lesions of these sites" in card
    assert "## Training" not in card
    # The model is the same, and the run is read as any other.
    assert Run.read(out).method == "validate"
    first, copy = ((place / "run" / MODEL_FILE).read_bytes() for place in (judged, out))
    assert first == copy


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
    fedderm, other, usual, finished, tuned, tmp_path
):
    method, model, *seen = usual
    codes = ",".join(HAM10000.codes)
    for settings, reason in (
        ([method, *seen], "no model to judge; set model=RUN"),
        ([method, "model=none", *seen], "none holds no finished run"),
        ([method, f"model={tuned}", *seen], f"{tuned} was trained with other settings; set size="),
        ([*usual, "resolution=100"], "; set resolution="),
        ([*usual, "views=1"], "'views' is 1, but augmented views are for training"),
        ([*usual, "size=64"], f"{finished} was trained with other settings; set size=224"),
        ([*usual, "predictions=2", "levels=0"], "; set levels=3 predictions=1"),
        ([*usual[:-1], "diagnoses=binary"], f"; set diagnoses={codes} "),
        ([*usual, "head=lda"], "'head' is lda, but the model to judge has its own"),
        (["method=svm", model], "'model' is "),
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
