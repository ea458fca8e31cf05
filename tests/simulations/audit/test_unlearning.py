"""``fedderm privacy unlearning``: what is taken out of a model is not found in it any more."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from common.config.run import RunConfig
from common.data.dataset import Dataset
from common.data.tables.ham10000 import write_metadata
from common.models.file import load_model
from common.synthetic_note import SYNTHETIC_NOTE
from server.run.folder import MODEL_FILE
from simulations.audit.membership import log_odds
from simulations.audit.unlearning import (
    AFTER,
    BEFORE,
    BOTH,
    CONFIDENCE,
    LEAST,
    MINUS,
    RATIO,
    REFERENCE,
    figures,
)
from simulations.audit.withdrawn import Compared, FinishedRun
from simulations.data.synthetic import write_synthetic
from tests.commands import IID, Type, is_one_error
from tests.sites import QUICK, write_features

LDA = ("head=lda",)
GONE = "site_01"
RNG = np.random.default_rng(0)


class Trains(NamedTuple):
    """Runs over two sites of lesions whose features are at hand."""

    fedderm: Type
    data: Path
    cache: Path
    folder: Path

    def __call__(self, name: str, *arguments: object, sites: Path | None = None) -> Path:
        out = self.folder / name
        data = (self.data, *IID) if sites is None else (sites, "--scheme", "folders")
        values = QUICK.model_copy(update={"cache": self.cache}).flat()
        usual = RunConfig().flat()
        settings = [f"{k}={v}" for k, v in values.items() if v != usual.get(k)]
        code, _, err = self.fedderm("simulate", *data, "--out", out, *settings, *arguments)
        assert code == 0, err
        return out


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Write lesions enough for intervals, and their features; return both folders."""
    folder = tmp_path_factory.mktemp("many")
    write_synthetic(folder / "data", images=400, seed=0)
    config = QUICK.model_copy(update={"cache": folder / "cache"})
    write_features(folder / "data", config)
    return folder / "data", config.cache


@pytest.fixture
def train(fedderm: Type, many: tuple[Path, Path], tmp_path: Path) -> Trains:
    return Trains(fedderm, *many, tmp_path)


def _without(run: Path, folder: Path) -> Path:
    """Return the sites of a run but for the one that leaves."""
    shutil.copytree(run / "sites", folder, symlinks=True)
    shutil.rmtree(folder / GONE)
    return folder


def _withdraw_lesions(run: Path, folder: Path, count: int) -> Path:
    """Return the sites of a run, one of which has taken training lesions out of its table."""
    shutil.copytree(run / "sites", folder, symlinks=True)
    site = Dataset.open(folder / GONE)
    gone = sorted(set(site.lesions[(site.splits != "test") & (site.labels == 0)]))[:count]
    rows = [image for image in site.images if image.lesion_id not in gone]
    assert len(gone) == count
    write_metadata(folder / GONE, (replace(row) for row in rows))
    return folder


def _attacked(fedderm: Type, file: Path, *arguments: object) -> tuple[str, dict, dict]:
    code, shown, err = fedderm("privacy", "unlearning", *arguments, "--out", file)
    assert (code, err) == (0, "")
    found = json.loads(file.read_text())
    return shown, found, {(f["attack"], f["model"]): f["value"] for f in found["figures"]}


def test_a_site_is_found_before_it_leaves_and_not_after(fedderm, train, tmp_path):
    before = train("before", *LDA)
    rest = _without(before, tmp_path / "rest")
    after = train("after", *LDA, "--from", before, f"leaving={GONE}", sites=rest)
    anew = train("anew", *LDA, sites=rest)
    command = (before, after, train.data, "--reference", anew, "--cache", train.cache)
    shown, found, values = _attacked(fedderm, tmp_path / "figures.json", *command)
    assert shown.startswith(SYNTHETIC_NOTE)
    assert "does not tell them from lesions it never saw" in shown
    assert values[RATIO, BEFORE][1] > 0.5
    assert values[RATIO, AFTER][1] < 0.5 < values[RATIO, AFTER][2]
    assert values[RATIO, MINUS][1] > 0
    for attack in (CONFIDENCE, RATIO):
        assert values[attack, AFTER] == values[attack, REFERENCE]
    # Whoever kept both models sees what left, however exactly it was taken out.
    assert values[CONFIDENCE, BOTH][1] > 0.5
    _is_scikit_learns(found, values, before, after, train.data, train.cache)


def _is_scikit_learns(found, values, before, after, data, cache):
    """Compare with scikit-learn's AUC over lesions that are found here by other means."""
    of = {name: Dataset.open(before / "sites" / name) for name in ("site_00", "site_01")}
    gone = set(of[GONE].lesions[of[GONE].splits != "test"])
    unseen = {n for site in of.values() for n in site.lesions[site.splits == "test"]}
    dataset = Dataset.open(data)
    for run, name in ((before, BEFORE), (after, AFTER)):
        scores = load_model(run / "run" / MODEL_FILE).dataset_scores(dataset, cache)
        by_place: dict[tuple, list] = {}
        for lesion in sorted(gone | unseen):
            own = dataset.lesions == lesion
            y, source = dataset.labels[own][:1], dataset.sources[own][0]
            pair = lesion in gone, log_odds(scores[own].mean(axis=0)[None], y)[0]
            by_place.setdefault((y[0], source), []).append(pair)
        total, count = 0.0, 0
        for pairs in by_place.values():
            is_gone, score = zip(*pairs, strict=True)
            if len(set(is_gone)) == 2:
                total += sum(is_gone) * roc_auc_score(is_gone, score)
                count += sum(is_gone)
        assert found["withdrawn"] == count
        assert values[CONFIDENCE, name][0] == pytest.approx(total / count, abs=1e-12)


def test_lesions_are_withdrawn_by_taking_out_their_rows(fedderm, train, tmp_path):
    before = train("before", *LDA)
    fewer = _withdraw_lesions(before, tmp_path / "fewer", 2)
    after = train("after", *LDA, "--from", before, sites=fewer)
    command = (before, after, train.data, "--cache", train.cache)
    shown, found, values = _attacked(fedderm, tmp_path / "figures.json", *command)
    assert found["withdrawn"] + found["alone"] == 2 < LEAST
    assert "an interval would say nothing" in shown
    assert values[CONFIDENCE, BEFORE][1:] == [None, None]


def test_an_unlearning_that_did_not_happen_is_seen():
    """The same scores before and after."""
    withdrawn, stratum = np.arange(400) % 2 == 0, np.arange(400) % 4 // 2
    scores = RNG.standard_normal(400) + withdrawn
    found = figures("", {BEFORE: scores, AFTER: scores}, withdrawn, stratum)
    values = {figure.model: figure.value for figure in found}
    assert values[AFTER].low > 0.5
    assert values[MINUS] == (0, 0, 0)


def test_that_sites_differ_is_not_membership():
    withdrawn, stratum = RNG.random(2000) < np.repeat([0.9, 0.1], 1000), np.repeat([0, 1], 1000)
    scores = RNG.standard_normal(2000) + 5 * (stratum == 0)
    assert roc_auc_score(withdrawn, scores) > 0.8
    found = figures("", {BEFORE: scores, AFTER: scores}, withdrawn, stratum)
    assert found[0].value.low < 0.5 < found[0].value.high


def test_a_network_remembers_what_its_ancestors_saw(
    fedderm, tuned, tune, synthetic_folder, tmp_path
):
    """Trained on without a site, it is not rid of it; from nothing, it is."""
    rest, on, anew = _without(tuned, tmp_path / "rest"), tmp_path / "on", tmp_path / "anew"
    command = ("simulate", rest, "--scheme", "folders", *tune)
    going_on = ("--from", tuned, "stages=all", "rounds=1", "local_epochs=0.05")
    assert fedderm(*command, "--out", on, *going_on)[0] == 0
    assert fedderm(*command, "--out", anew)[0] == 0
    refused = fedderm("privacy", "unlearning", tuned, on, synthetic_folder)
    assert is_one_error(*refused)
    assert "no lesion is withdrawn" in refused[2]
    _, found, values = _attacked(fedderm, tmp_path / "figures.json", tuned, anew, synthetic_folder)
    assert found["shadows"] == 0
    assert {attack for attack, _ in values} == {CONFIDENCE}
    runs = [FinishedRun.open(run, ()) for run in (tuned, anew)]
    compared = Compared.find(synthetic_folder, *runs, [])
    validated = runs[0].seen - runs[0].fitted
    assert validated  # the lesions of its validation are neither members nor others
    assert not validated & set(compared.dataset.lesions)


def test_a_mistake_is_one_line(fedderm, train, tmp_path):
    before = train("before", *LDA)
    rest = _without(before, tmp_path / "rest")
    after = train("after", *LDA, "--from", before, f"leaving={GONE}", sites=rest)
    two = train("two", "diagnoses=nv,mel,bkl", sites=rest)
    for arguments, reason in [
        ((before, before, train.data), "is both the run before and the one after"),
        ((after, before, train.data), "no lesion is withdrawn"),
        ((before, two, train.data), "compare models of the same diagnoses"),
        ((before, after, rest / "site_00"), "none of the"),
        ((before, after, tmp_path), "describe its table in data.toml"),
        ((before, tmp_path, train.data), "holds no finished run"),
        ((before, after, train.data, "--reference", before), "name a run that was trained"),
    ]:
        refused = fedderm("privacy", "unlearning", *arguments)
        assert is_one_error(*refused), refused
        assert reason in refused[2]
    shutil.rmtree(before / "sites")
    refused = fedderm("privacy", "unlearning", before, after, train.data)
    assert is_one_error(*refused)
    assert "its sites are gone" in refused[2]
