"""Fine-tuning that goes on from a finished run keeps old logits, and old answers where asked."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import softmax

from common.config.run import RunConfig
from common.data.dataset import Dataset
from common.data.splits import TEST
from common.errors import ConfigError
from common.models.file import load_model
from common.models.network import NetworkModel
from common.networks.network import run_network
from server.run.folder import METRICS_FILE, MODEL_FILE
from simulations.runtimes.experiment import simulate
from tests.finetuning import changed

FEW = "bkl,mel,nv"


@pytest.fixture(scope="module")
def first(base: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run to the end."""
    out = tmp_path_factory.mktemp("first") / "run"
    simulate(changed(base, out))
    return out


def read(run: Path, weights: Path) -> NetworkModel:
    return load_model(run / MODEL_FILE, weights)


def go_on(base: RunConfig, out: Path, **changes: Any) -> NetworkModel:
    settings = {"stages": ("all",), "rounds": (2,), "lr": (0.003,), **changes}
    simulate(changed(base, out, **settings))
    return read(out, base.weights)


def test_it_starts_from_the_weights_of_its_parent(base, first, tmp_path):
    before = read(first, base.weights).weights
    still = go_on(base, tmp_path / "still", parent=first, lr=(1e-12,)).weights
    # The parent's best round may be of a stage that opens less.
    start = run_network(base).pretrained_arrays | before
    assert still.keys() == start.keys()
    for name, array in start.items():
        np.testing.assert_allclose(still[name], array, atol=1e-6)
    moved = go_on(base, tmp_path / "moved", parent=first).weights
    assert np.abs(moved["head.weight"] - before["head.weight"]).max() > 1e-3


def test_a_diagnosis_is_added_and_old_logits_are_kept(base, dataset, tmp_path):
    few = tmp_path / "few"
    simulate(changed(base, few, diagnoses=FEW))
    parent = read(few, base.weights)
    wider = go_on(base, tmp_path / "wider", parent=few, lr=(1e-12,))
    places = [wider.task.codes.index(code) for code in parent.task.codes]
    images = [(row.image_id, dataset.read(row.image_id)) for row in dataset.images[:5]]
    old, new = parent.scores(images), wider.scores(images)
    np.testing.assert_allclose(new[:, places], old, atol=1e-4)
    np.testing.assert_allclose(np.delete(new, places, axis=1), 0, atol=1e-4)


def test_distillation_holds_on_to_what_the_parent_said(base, first, dataset: Dataset, tmp_path):
    images = [(row.image_id, dataset.read(row.image_id)) for row in dataset.images]

    def said(model: NetworkModel) -> Any:
        return softmax(model.scores(images), axis=1)

    before = said(read(first, base.weights))
    plain = go_on(base, tmp_path / "plain", parent=first, rounds=(6,))
    held = go_on(base, tmp_path / "held", parent=first, rounds=(6,), distillation=10)
    gap_plain, gap_held = (np.abs(said(m) - before).mean() for m in (plain, held))
    assert gap_held < 0.7 * gap_plain


def test_it_is_compared_with_its_parent_on_lesions_that_both_held_out(base, dataset, tmp_path):
    held_out = np.unique(dataset.labels[dataset.splits == TEST])
    known = ",".join(dataset.task.codes[label] for label in held_out)
    few = tmp_path / "few"
    simulate(changed(base, few, diagnoses=known))

    def compared(name: str, **changes: Any) -> dict:
        go_on(base, tmp_path / name, parent=few, diagnoses=known, gate=True, **changes)
        return json.loads((tmp_path / name / METRICS_FILE).read_text())["gate"]

    still, moved = compared("still", lr=(1e-12,)), compared("moved", lr=(0.03,))
    assert still["accepted"], still["reason"]
    assert still["rows"]
    assert {row["change"]["value"] for row in still["rows"]} <= {0, None}
    assert [row["old"] for row in still["rows"]] == [row["old"] for row in moved["rows"]]
    assert still["lesions"] == moved["lesions"] > 0
    with pytest.raises(ConfigError, match="saw them otherwise; set size="):
        compared("larger", size=96)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stages": ("head", "all")}, "what a stage freezes is the pretrained"),
        ({"colour": "grey-world"}, "set colour=none"),
        ({"diagnoses": FEW}, "apart, which this run does not"),
        ({"parent": "", "distillation": 1}, "there is no model whose answers to keep"),
    ],
)
def test_what_cannot_go_on_is_one_line(base, first, tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        go_on(base, tmp_path / "run", **{"parent": first, **changes})
