"""A private run: the same over any partition but for its noise, and worth its price once only."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import client.app
import client.methods.private
import server.app
import server.methods.private
from client.egress.questions import Question
from client.open_site import SITE, site_folders
from common.config.run import RunConfig
from common.errors import ConfigError, QuorumError
from common.models.file import load_model
from common.models.linear import LinearModel
from server.run.folder import CARD_FILE, METRICS_FILE, MODEL_FILE
from simulations.runtimes.experiment import simulate
from simulations.runtimes.in_process import run_in_process
from tests.sites import N_FEATURES, hospital_file, make_quick_sites, with_changes

SETTINGS = {"method": "private", "components": 16, "steps": 8, "imbalance": "logits"}
MakeRun = Callable[..., RunConfig]


@pytest.fixture
def make_run(synthetic_folder: Path, tmp_path: Path) -> MakeRun:
    """Configure a run over new sites, whose ledgers are empty."""

    def make(name: str, sites: int = 3, **changes: Any) -> RunConfig:
        base = make_quick_sites(synthetic_folder, tmp_path / name, sites)
        return with_changes(base, {"out": tmp_path / name / "run", **SETTINGS, **changes})

    return make


def _model(run: RunConfig) -> LinearModel:
    assert run.out is not None
    model = load_model(run.out / MODEL_FILE)
    assert isinstance(model, LinearModel)
    return model


@pytest.mark.parametrize("metadata", ["", "age,sex,localization"])
@pytest.mark.parametrize("head", ["softmax", "hinge", "lda"])
def test_without_noise_three_sites_have_the_model_of_one(make_run, head, metadata):
    one, three = (make_run(f"{n}", sites=n, head=head, metadata=metadata) for n in (1, 3))
    for run in (one, three):
        simulate(run)
    # A lesion is never in two sites, so the records are the same; sums are rounded to 2^-24.
    # An LDA divides by the small variances of rare places.
    ours, theirs = _model(three).weights, _model(one).weights
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)


def test_of_margins_the_largest_decides(make_run):
    run = make_run("margins", sites=1, head="hinge", imbalance_strength=0.3)
    simulate(run)
    basis = _model(run).basis
    margins = np.random.default_rng(0).standard_normal((99, len(basis.base_rates)))
    np.testing.assert_array_equal(basis.decide(margins), margins.argmax(axis=1))


@pytest.mark.parametrize("imbalance", ["none", "weights", "logits"])
def test_rare_classes_get_the_remedy_that_is_configured(make_run, imbalance):
    run = make_run("run", imbalance=imbalance, imbalance_strength=0.5)
    counts = np.array(list(simulate(run)["training"]["class_counts"].values()))
    # What the remedy took from the scores of frequent classes, their probabilities get back.
    expected = np.zeros(7) if imbalance == "none" else 0.5 * np.log(counts / counts.sum())
    np.testing.assert_allclose(_model(run).basis.calibration[1], expected, atol=1e-9)


def test_a_private_run_ends_with_a_model_and_says_what_it_promises(make_run):
    run = make_run("run", epsilon=4)
    metrics = simulate(run)
    assert metrics["training"]["noise"] > 1
    assert metrics["overall"]["n"] > 0
    card = (run.out / CARD_FILE).read_text()
    assert "epsilon 4, delta 1e-05, for each `lesion_id`" in card
    assert "not disclosed" in card
    views = np.random.default_rng(0).standard_normal((5, 1, N_FEATURES))
    model = _model(run)
    assert model.scores(views).shape == (5, 7)
    assert model.basis.appearance is None
    assert not model.basis.lesions.confusion.any()
    assert "No counts of answers were released" in card


@pytest.mark.parametrize("figures", [True, False])
def test_hospitals_that_give_no_test_counts_have_a_model_without_figures(
    make_run, tmp_path, figures
):
    run = make_run("run", epsilon=4)
    nodes = [
        {SITE: str(hospital_file(f, tmp_path / f.name, run.cache, epsilon=4, test_counts=figures))}
        for f in site_folders(run.sites)
    ]
    run_in_process(server.app.app, client.app.app, nodes, run.flat())
    metrics = json.loads((run.out / METRICS_FILE).read_text())
    assert (metrics["overall"]["n"] > 0) == figures
    assert list(metrics["data"]["sites"]) == [folder.name for folder in site_folders(run.sites)]
    assert metrics["data"]["left_out"] == {}
    assert _model(run).config.epsilon == 4
    assert not re.search(r"\bnan\b", (run.out / CARD_FILE).read_text())


def test_distributed_noise_is_as_much_in_all_as_one_party_would_add(make_run):
    alone = make_run("alone", sites=1, epsilon=1)
    shared = make_run("shared", epsilon=1, trust="distributed", honest=3)
    apart = make_run("apart", epsilon=1)
    assert len({simulate(run)["training"]["noise"] for run in (alone, shared, apart)}) == 1


@pytest.mark.parametrize(
    ("less", "more", "factor"),
    [
        # Four sites, each with all of the noise.
        ({}, {"trust": "site", "honest": 1, "expected": 4}, 2),
        ({}, {"clip_norm": 0.5}, 0.5),
        ({"epsilon": 8}, {"epsilon": 1}, None),
    ],
)
def test_steps_are_the_smaller_the_more_noise_there_is(less, more, factor):
    base = {"method": "private", "epsilon": 3, "trust": "distributed", "honest": 4}

    def rate(changes: dict[str, Any], units: float = 5000) -> float:
        config = RunConfig.read({**base, **changes})
        return server.methods.private.learning_rate(config, units)

    ratio = rate(less) / rate(more)
    assert ratio == pytest.approx(factor) if factor else ratio > 2
    assert rate({}, units=10_000) == pytest.approx(2 * rate({}))
    # Without noise, and with little, they are as large as can be.
    assert rate({"epsilon": 0, "trust": "site", "honest": 1}) == rate({}, units=1e9)


def test_a_site_whose_noise_is_needed_is_not_left_out(make_run, monkeypatch):
    real = client.methods.private.answer

    def failing(site: Any, question: Question) -> Any:
        if site.name.endswith("1") and question.name == "gradient":
            raise OSError("disk gone")
        return real(site, question)

    monkeypatch.setattr(client.methods.private, "answer", failing)
    with pytest.raises(QuorumError, match="2 sites added noise in step 1, 3 must"):
        simulate(make_run("shared", epsilon=4, trust="distributed", honest=3))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "svm", "epsilon": 3}, "method svm sends sums without noise"),
        ({"method": "finetune", "epsilon": 3}, "method finetune sends sums without noise"),
        ({"method": "private", "epsilon": -1}, "'epsilon' is -1"),
        ({"method": "private", "delta": 0.5}, "'delta' is 0.5"),
        ({"method": "private", "rate": 0}, "'rate' is 0"),
        ({"method": "private", "unit": "patient"}, "'unit' is 'patient'"),
        ({"method": "private", "head": "lda", "rate": 0.5}, "'rate' is for gradients"),
        ({"method": "private", "honest": 3}, "'honest' is for trust=distributed"),
        (
            {"method": "private", "metadata": "age", "metadata_scale": "0.1,0.3"},
            "'metadata_scale' is 0.1,0.3, but a private run chooses nothing by its lesions",
        ),
        ({"method": "private", "metadata_scale": 1e300}, "'metadata_scale' is 1e"),
    ],
)
def test_promises_that_cannot_be_kept_are_no_configuration(settings, message):
    with pytest.raises(ConfigError, match=message):
        RunConfig.read(settings)
