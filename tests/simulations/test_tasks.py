"""Eight classes and two go through every method, to predictions and reports, by no other code."""

import csv
import html
import io
import json
import logging
from collections import Counter
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from client.egress.allowlist import svm
from client.egress.answer import Answer
from client.egress.guard import release
from client.egress.questions import Question, check
from client.predict.text import block
from client.predict.values import columns
from client.site import Site
from common.answers.answering import Answering, AnswerOptions
from common.answers.operating import targets_of
from common.config.run import RunConfig
from common.data.dataset import Dataset
from common.errors import DataError, RefusalError
from common.models.file import load_model
from common.models.predictor import Predictor
from common.statistics.calibration import CalibrationSums
from common.task import BINARY, HAM10000, ISIC2019, TASKS, Task
from server.run.folder import CARD_FILE, CONFIG_FILE, METRICS_FILE, MODEL_FILE
from simulations.data.partition import write_sites
from simulations.data.synthetic import write_synthetic
from simulations.runtimes.experiment import FOLDERS, POOLED, train
from tests.commands import TUNE, is_one_error
from tests.finetuning import BACKBONE
from tests.sites import QUICK, write_features

METHODS = {
    "svm": {"c": "1e-3"},
    "ridge": {"head": "ridge"},
    "lda": {"head": "lda"},
    "private": {"method": "private", "components": 16, "steps": 3, "levels": 0},
}
QUICKLY = {"size": QUICK.size, "levels": 0, "views": 1, "predictions": 1, "folds": 2}
KC = {
    "diagnoses": "mel,nv,bkl,kc",
    "mapping": "akiec+bcc+scc->kc",
    "names": "kc:keratinocyte carcinoma",
    "malignant": "mel,kc",
}


@pytest.fixture(scope="session", params=["isic2019", "binary"])
def other(request, tmp_path_factory) -> Path:
    """Write a set of eight or of two classes."""
    return _written(request.param, tmp_path_factory.mktemp(request.param) / "data")


@pytest.fixture(scope="session")
def eight(tmp_path_factory) -> Path:
    return _written("isic2019", tmp_path_factory.mktemp("eight") / "data")


def _written(task: str, folder: Path) -> Path:
    write_synthetic(folder, 90, task=TASKS[task])
    return folder


def _config(data: Path, cache: Path, **settings: object) -> RunConfig:
    values = {**QUICKLY, "components": 12, "min_active": 1, "cache": cache, **settings}
    if settings.get("method") == "private":
        del values["min_active"]
    config = RunConfig.read(values)
    write_features(data, config)
    return config


def _task_of(data: Path) -> Task:
    return {8: ISIC2019, 2: BINARY}[Dataset.open(data).task.n_classes]


@pytest.mark.parametrize("method", ["ridge", "lda", "private"])
def test_the_task_of_the_data_is_the_runs_and_the_models(other, tmp_path, method):
    task, config = _task_of(other), _config(other, tmp_path / "cache", **METHODS[method])
    run = train(config, other, tmp_path / "out", "iid", 2)
    metrics = json.loads((run / METRICS_FILE).read_text())
    assert np.shape(metrics["overall"]["confusion"]) == (task.n_classes, task.n_classes)
    assert tuple(metrics["overall"]["per_class"]) == task.codes
    assert tuple(json.loads((run / CONFIG_FILE).read_text())["diagnoses"]) == task.codes
    model = load_model(run / MODEL_FILE)
    assert model.task == model.config.task == task
    card = (run / CARD_FILE).read_text()
    assert all(f"| {c} | {n} |" in card for c, n in zip(task.codes, task.names, strict=True))


def test_an_svm_of_eight_classes_answers_by_its_own_task(eight, tmp_path):
    config = _config(eight, tmp_path / "cache", **{**METHODS["svm"], "components": 40})
    run = train(config, eight, tmp_path / "out", POOLED)
    model = load_model(run / MODEL_FILE)
    answering = Answering(model.basis, AnswerOptions())
    chances = np.random.default_rng(0).dirichlet(np.ones(8), 3)
    for answer, chance in zip(
        answering.answers(list("abc"), chances, np.full(3, np.nan)), chances, strict=True
    ):
        assert answer.diagnosis == ISIC2019.codes[chance.argmax()]
        assert set(answer.probabilities) == set(ISIC2019.codes)
        assert answer.name in block(answer)


@pytest.fixture
def tuned_other(other, network_file, tmp_path) -> Path:
    """Fine-tune a head on eight classes or two."""
    values = dict(setting.split("=") for setting in TUNE)
    places = {"cache": tmp_path / "cache", "backbone": BACKBONE}
    places["weights"] = network_file
    config = RunConfig.read({**values, **places, "rounds": 1})
    return train(config, other, tmp_path / "out", "iid", 2)


def test_a_fine_tuned_network_predicts_and_its_table_has_its_columns(
    tuned_other, other, network_file, fedderm
):
    image = next(other.rglob("*.jpg"))
    code, out, err = fedderm("predict", tuned_other, image, "--csv", "--weights", network_file)
    assert code == 0, err
    header, cells = csv.reader(io.StringIO(out))
    task = _task_of(other)
    assert tuple(header) == columns(task)
    row = dict(zip(header, cells, strict=True))
    assert row["diagnosis"] in task.codes
    assert sum(float(row[f"probability_{c}"]) for c in task.codes) == pytest.approx(1)
    assert not [c for c in header if c.startswith("screening_mel")] or "mel" in task.codes
    predictor = Predictor.open(tuned_other / MODEL_FILE, network_file)
    assert predictor.model.task == task
    assert len(predictor.model.basis.lesions.screening) == len(targets_of(task))


STUDY = """
title = "Another task"
folds = 2
views = 1
[routes.network]
method = "finetune"
size = 64
stages = ["head"]
rounds = 1
batch = 16
predictions = 1
[spreads]
pooled = { scheme = "pooled" }
[[arms]]
route = "network"
spreads = ["pooled"]
"""


def test_a_study_reports_by_the_task_of_the_data(fedderm, other, network_file, tmp_path):
    file, out = tmp_path / "study.toml", tmp_path / "out"
    own = f'backbone = "{BACKBONE}"\nweights = "{network_file}"\n[spreads]'
    file.write_text(STUDY.replace("[spreads]", own))
    places = ("--study", file, "--cache", tmp_path / "cache")
    code, _, err = fedderm("compare", other, "--out", out, *places)
    assert code == 0, err
    task, report = _task_of(other), json.loads((out / "report.json").read_text())
    [arm] = report["arms"]
    assert not arm.get("failures")
    assert np.shape(arm["confusion"]) == (task.n_classes, task.n_classes)
    assert np.sum(arm["confusion"]) == report["about"]["images"] == len(Dataset.open(other))
    page = html.unescape((out / "report.html").read_text())
    assert all(name in page for name in task.names)


def test_an_attack_is_tried_on_the_task_of_the_data(fedderm, other, network_file, tmp_path):
    settings = [*TUNE, f"backbone={BACKBONE}", f"weights={network_file}", "rounds=1"]
    defence = ("optimizer=sgd", "robust=median", "hostile=1")
    how = ("--sites", 4, "--hostile", 1, "--attacks", "label_flip")
    code, printed, err = fedderm(
        *("attack", other, "--out", tmp_path / "out"), *how, *settings, *defence
    )
    assert code == 0, err
    assert "no model" not in printed
    assert "| label_flip | 1 | " in printed


def test_a_run_is_audited_by_the_task_of_the_data(fedderm, other, tmp_path):
    config = _config(other, tmp_path / "cache", **METHODS["private"])
    train(config, other, tmp_path / "out", "iid", 2)
    code, printed, err = fedderm("privacy", "audit", tmp_path / "out", "--data", other)
    assert code == 0, err
    assert "membership inference, AUC" in printed


def test_mapped_diagnoses_train_as_one_and_others_are_left_out_and_named(eight, tmp_path, caplog):
    config = _config(eight, tmp_path / "cache", head="ridge", **KC)
    table = Counter(image.dx for image in Dataset.open(eight).images)
    with caplog.at_level(logging.WARNING):
        run = train(config, eight, tmp_path / "out", "iid", 2)
    left_out = {dx: table[dx] for dx in ("df", "vasc")}
    assert f"df {left_out['df']}, vasc {left_out['vasc']}" in caplog.text
    model = load_model(run / MODEL_FILE)
    assert model.task == config.task
    assert model.task.name("kc") == "keratinocyte carcinoma"
    sites = json.loads((run / METRICS_FILE).read_text())["data"]["sites"].values()
    assert sum(site["images"] for site in sites) == table.total() - sum(left_out.values())
    assert (
        "| kc | keratinocyte carcinoma | yes | akiec, bcc, scc |" in (run / CARD_FILE).read_text()
    )


def test_sites_may_lack_classes_and_have_others_which_are_named(eight, tmp_path, caplog):
    dataset = Dataset.open(eight)
    numbers = {code: k for k, code in enumerate(dataset.task.codes)}
    few = np.isin(dataset.labels, [numbers[c] for c in ("nv", "mel", "scc")])
    halves = {"few": np.flatnonzero(few), "rest": np.flatnonzero(~few)}
    write_sites(dataset, halves, tmp_path / "sites", link=True)
    config = _config(eight, tmp_path / "cache", head="ridge", diagnoses="ham10000")
    with caplog.at_level(logging.INFO):
        run = train(config, tmp_path / "sites", tmp_path / "out", FOLDERS)
    assert "few: " in caplog.text
    assert "'mapping' counts them as others" in caplog.text
    data = json.loads((run / METRICS_FILE).read_text())["data"]
    assert data["sites"]["few"]["classes"] == ["mel", "nv"]
    assert data["sites"]["few"]["others"] == ["scc"]
    assert data["differing"] == [
        "few has no akiec, bcc, bkl, df, vasc and leaves out scc",
        "rest has no mel, nv",
    ]
    assert load_model(run / MODEL_FILE).task == HAM10000


def test_several_folders_agree_on_a_task_that_has_the_diagnoses_of_each(eight, tmp_path):
    dataset = Dataset.open(eight)
    scc = dataset.labels == dataset.task.codes.index("scc")
    halves = {"a": np.flatnonzero(~scc), "b": np.arange(len(dataset))[::2]}
    write_sites(dataset, halves, tmp_path / "sites", link=True)
    assert Dataset.open(tmp_path / "sites" / "a").task == HAM10000
    config = _config(eight, tmp_path / "cache", head="ridge")
    run = train(config, tmp_path / "sites", tmp_path / "out", FOLDERS)
    assert load_model(run / MODEL_FILE).task == ISIC2019


def test_a_dataset_of_none_of_the_diagnoses_is_one_line(eight):
    with pytest.raises(DataError, match=r"its diagnoses, akiec, .* is one of benign") as no:
        Dataset.open(eight).for_task(BINARY)
    assert "\n" not in str(no.value)


def test_a_task_leaves_out_and_counts_without_changing_what_the_table_says(eight):
    dataset = Dataset.open(eight)
    task = Task.of(("mel", "nv", "kc"), mapping={"bcc": "kc", "scc": "kc"})
    kept = dataset.for_task(task)
    counts = Counter(image.dx for image in dataset.images)
    assert kept.left_out == {dx: counts[dx] for dx in ("akiec", "bkl", "df", "vasc")}
    assert {image.dx for image in kept.images} == {"mel", "nv", "bcc", "scc"}
    assert [task.codes[k] for k in kept.labels] == [task.mapped(i.dx) for i in kept.images]
    assert replace(dataset.for_task(dataset.task), left_out={}) == dataset


@pytest.mark.parametrize("k", [2, 7, 8, 9])
def test_only_arrays_of_the_runs_number_of_classes_come_in_and_leave(eight, k):
    site = Site(eight, RunConfig.read({"diagnoses": "isic2019"}))
    asked = {"weights": np.zeros((1, k, 13))}
    question = Question(1, "1", "hinge", asked, {"map": "0" * 64, "question": "hinge"})
    sums = CalibrationSums.zero(k).to_record()
    with nullcontext() if k == 8 else pytest.raises(RefusalError, match=r"is not Form.*8"):
        check(site, question, svm.QUESTIONS)
    with nullcontext() if k == 8 else pytest.raises(RefusalError, match="not how it is declared"):
        release(site, Question(1, "2", "calibrate"), Answer(sums))


@pytest.mark.parametrize("codes", [["mel", "mr smith"], [True] * 7, [1] * 8])
def test_no_diagnosis_in_a_tables_own_words_leaves(eight, codes):
    site = Site(eight, RunConfig.read({"diagnoses": "isic2019"}))
    for name in ("classes", "others"):
        with pytest.raises(RefusalError, match="not one flag"):
            release(site, Question(1, "1", "join"), Answer(values={name: codes}))


def test_nonsense_is_one_line_at_the_command(fedderm, eight, tmp_path):
    assert is_one_error(*fedderm("simulate", eight, "--out", tmp_path / "o", "diagnoses=isic2018"))
