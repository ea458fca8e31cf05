"""A run that goes on judges, by added counts alone, whether its model may replace the old one."""

import json
from pathlib import Path

import numpy as np
import pytest

from common.answers.answering import Answering, AnswerOptions
from common.answers.paired import PairedCounts, Said
from common.answers.prediction_sets import sets
from common.answers.verdict import ALL, REFUSED
from common.config.run import RunConfig
from common.data.dataset import Dataset
from common.data.splits import TEST, one_image_a_lesion
from common.errors import ConfigError
from common.features.extract import content_keys
from common.models.file import load_model
from server.run.folder import CARD_FILE, METRICS_FILE, MODEL_FILE
from server.run.summary import exit_code, result_text
from simulations.data.partition import write_site
from simulations.runtimes.experiment import rounds, simulate
from tests.sites import make_quick_sites, with_changes

SITES = 3
GATE = {"gate": True, "gate_least": 5}


@pytest.fixture(scope="module")
def config(synthetic_folder, tmp_path_factory) -> RunConfig:
    base = make_quick_sites(synthetic_folder, tmp_path_factory.mktemp("sites"), SITES)
    return base.model_copy(update={"tolerance": 1e-4})


@pytest.fixture(scope="module")
def old(config, tmp_path_factory) -> Path:
    return trained(config, tmp_path_factory.mktemp("old") / "run", c=1e-3)


def trained(config: RunConfig, out: Path, **changes: object) -> Path:
    simulate(with_changes(config, {"out": out, **changes}))
    return out


def gate_of(run: Path) -> dict:
    return json.loads((run / METRICS_FILE).read_text())["gate"]


def pooled(config: RunConfig, *runs: Path) -> PairedCounts:
    """Count the lesions of all sites by what both models say of them, loaded from their files."""
    total, task = PairedCounts.zero(config.task), config.task
    for site in sorted(config.sites.iterdir()):
        dataset = Dataset.open(site).for_task(task)
        chosen = (dataset.splits == TEST) & one_image_a_lesion(dataset, content_keys(dataset))
        held = dataset.select(chosen)
        said = []
        for run in runs:
            model = load_model(run / MODEL_FILE)
            scores = model.dataset_scores(held, config.cache)
            chances = model.basis.probabilities(scores)
            answering = Answering(model.basis, AnswerOptions())
            inside = sets(chances, answering.thresholds())
            melanoma = chances[:, task.codes.index("mel")]
            points = [p.threshold for p in answering.points if p.target == "mel"]
            flagged = melanoma >= points[0] if points else np.zeros(len(held), dtype=bool)
            right = model.basis.decide(scores) == held.labels
            said.append(Said(right, inside[np.arange(len(held)), held.labels], flagged))
        total = total + PairedCounts.measure(task, held.labels, *said)
    return total


@pytest.mark.parametrize("secure", [False, True])
def test_the_counts_are_those_of_both_models_on_the_pooled_lesions(config, old, tmp_path, secure):
    settings = {"parent": old, "c": 1e-7, "secure": secure, "gate_by": "sex", **GATE}
    new = trained(config, tmp_path / "new", **settings)
    found, counts = gate_of(new), pooled(config, old, new)
    rows = {(row["group"], row["metric"]): row for row in found["rows"]}
    row = rows[ALL, "balanced_accuracy"]
    right = [counts.correct.sum(axis=2)[:, 1], counts.correct.sum(axis=1)[:, 1]]
    means = [(each / counts.lesions).mean() for each in right]
    np.testing.assert_allclose([row["old"], row["new"]], means)
    covered = [counts.covered.sum(axis=(0, 2))[1], counts.covered.sum(axis=(0, 1))[1]]
    row = rows[ALL, "coverage"]
    np.testing.assert_allclose([row["old"], row["new"]], covered / counts.lesions.sum())
    assert found["lesions"] == counts.lesions.sum()
    groups = {group for group, _ in rows}
    assert {"sex female", "sex male"} < groups
    assert ("site_00" in groups) != secure
    asked = [q for line in rounds(new) if not (q := line["question"]).startswith("secure.")]
    assert asked[-4:] == ["incumbent", "paired", "paired_groups", "close"]


def test_a_worse_model_is_kept_and_said_not_to_replace_the_old_one(config, old, tmp_path):
    before = (old / MODEL_FILE).read_bytes()
    new = trained(config, tmp_path / "new", parent=old, c=1e-9, **GATE)
    found = gate_of(new)
    assert not found["accepted"]
    assert found["reason"].startswith("the new one is worse in balanced accuracy of all lesions")
    assert exit_code(new) == REFUSED
    last = f"The old model stays: {found['reason']}."
    assert result_text(new).splitlines()[-1] == last
    assert last in (new / CARD_FILE).read_text()
    assert (old / MODEL_FILE).read_bytes() == before
    assert (new / MODEL_FILE).exists()
    same = trained(config, tmp_path / "same", parent=old, c=1e-3, **GATE)
    assert gate_of(same)["accepted"]
    assert exit_code(same) == 0
    assert all(row["change"]["value"] in (0, None) for row in gate_of(same)["rows"])


def test_a_diagnosis_without_held_out_lesions_cannot_be_judged(config, old, tmp_path):
    sites = tmp_path / "sites"
    first = next(iter(sorted(config.sites.iterdir())))
    table = Dataset.open(first)
    kept = (table.splits != TEST) | (table.labels != 0)
    write_site(table.select(kept), sites / first.name, link=True)
    new = trained(config, tmp_path / "new", parent=old, c=1e-3, sites=sites, **GATE)
    assert gate_of(new)["reason"].startswith("no held-out lesion of akiec")
    assert exit_code(new) == REFUSED


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"parent": ""}, "no model to compare with; set parent=RUN"),
        ({"folds": 3}, "held out other lesions or saw them otherwise; set folds=2"),
        ({"gate_by": "site"}, "sites are judged without it"),
        ({"gate_by": "colour"}, "colour"),
    ],
)
def test_what_cannot_be_compared_is_one_line_before_anything_is_asked(
    config, old, tmp_path, changes, message
):
    with pytest.raises(ConfigError, match=message):
        trained(config, tmp_path / "new", **{"parent": old, **GATE, **changes})
    assert not (tmp_path / "new").exists()
