"""A new model replaces an old one only where nothing that matters is lost."""

import json
import math
import shutil

import pytest

from common.answers.paired import FIGURES
from common.answers.verdict import ALL, REFUSED, verdict
from common.data.dataset import Dataset
from common.errors import DataError
from common.models.file import load_model
from common.synthetic_note import SYNTHETIC_NOTE
from common.task import Task
from server.run.folder import MODEL_FILE
from simulations.evaluation.replacement import _refuse_missing
from tests.charts import texts_of
from tests.commands import is_one_error


@pytest.fixture
def places(synthetic_folder, cached) -> tuple[object, ...]:
    return synthetic_folder, "--cache", cached.cache


def _figures(fedderm, places, old, new, *options):
    """Return the exit code, what is shown, and the figures by group and metric."""
    out = new.parent / f"{old.name}-{new.name}.json"
    code, shown, err = fedderm("gate", old, new, *places, "--out", out, *options)
    assert not err
    values = json.loads(out.read_text())
    return code, shown, {(row["group"], row["metric"]): row for row in values["rows"]}


def test_a_copy_loses_nothing_and_may_replace_its_model(fedderm, places, finished, tmp_path):
    copy = shutil.copytree(finished, tmp_path / "copy")
    chart = tmp_path / "changes.svg"
    options = ("--least", 5, "--by", "sex", "--chart", chart)
    code, shown, rows = _figures(fedderm, places, finished, copy, *options)
    assert code == 0
    assert shown.splitlines()[0] == SYNTHETIC_NOTE
    assert shown.splitlines()[-1] == "The new model may replace the old one."
    assert {metric for group, metric in rows if group == ALL} == set(FIGURES)
    assert {"female", "male"} < {group for group, _ in rows}
    measured = [row for row in rows.values() if row["verdict"] != "not measured"]
    assert len(measured) > 3
    assert all(row["change"]["value"] == 0 and row["old"] == row["new"] for row in measured)
    drawn = {(FIGURES[row["metric"]], f"{row['group']} ({row['lesions']:.0f})") for row in measured}
    assert {text for pair in drawn for text in pair} <= set(texts_of(chart))
    before = chart.read_bytes()
    refused = fedderm("gate", finished, copy, *places, *options)
    assert is_one_error(*refused)
    assert chart.read_bytes() == before


def test_a_worse_model_is_refused_and_the_better_one_is_not(
    fedderm, places, finished, tuned, tmp_path
):
    evaluated = tmp_path / "figures.json"
    folder, _, cache = places
    runs = (finished, tuned, f"cache={cache}")
    assert fedderm("evaluate", folder, *runs, "--out", evaluated)[0] == 0
    judged = [
        run["quality"]["balanced_accuracy"] for run in json.loads(evaluated.read_text())["runs"]
    ]
    whole = ALL, "balanced_accuracy"
    before = (finished / "run" / MODEL_FILE).read_bytes()
    for old, new, pair in ((finished, tuned, judged), (tuned, finished, judged[::-1])):
        code, shown, rows = _figures(fedderm, places, old, new)
        # Images of a lesion share its weight here, and count each in `evaluate`.
        assert [rows[whole]["old"], rows[whole]["new"]] == pytest.approx(pair, abs=0.05)
        change = rows[whole]["change"]
        assert (
            change["low"]
            < change["value"]
            == pytest.approx(rows[whole]["new"] - rows[whole]["old"])
        )
        worse = judged[1] < judged[0] and new == tuned
        assert (rows[whole]["verdict"] == "refused") == worse
        assert (code == REFUSED) == ("The old model stays: " in shown)
        assert code == REFUSED or not worse
    assert (finished / "run" / MODEL_FILE).read_bytes() == before


@pytest.mark.parametrize(
    ("change", "high", "whole", "expected"),
    [
        (-0.03, 0.04, True, "refused"),
        (-0.03, 0.04, False, "worse, not shown"),
        (-0.03, -0.01, False, "refused"),
        (-0.02, -0.01, True, "passed"),
        (0.10, 0.15, True, "passed"),
        (math.nan, math.nan, True, "not measured"),
    ],
)
def test_a_part_is_refused_where_its_loss_is_shown(change, high, whole, expected):
    assert verdict(change, high, 0.02, whole) == expected


def test_what_cannot_be_compared_is_one_line(fedderm, places, finished, tmp_path):
    folder, *cache = places
    model = load_model(finished / "run" / MODEL_FILE)
    task = Task.of(model.task.codes[::-1], malignant=model.task.malignant)
    config = model.config.model_copy(update={"diagnoses": task.codes})
    basis = type(model.basis)(**{**vars(model.basis), "task": task})
    other = tmp_path / "other"
    type(model)(**{**vars(model), "config": config, "basis": basis}).save(other)
    for new, reason in (
        (finished, "is both the old run and the new one"),
        (tmp_path, "holds no finished run"),
        (other, "models are compared on the same diagnoses"),
    ):
        refused = fedderm("gate", finished, new, folder, *cache)
        assert is_one_error(*refused)
        assert reason in refused[2]


def test_a_diagnosis_without_held_out_lesions_cannot_be_judged(synthetic_folder):
    dataset = Dataset.open(synthetic_folder)
    with pytest.raises(DataError, match=r": no held-out lesion of akiec, so nobody can say"):
        _refuse_missing(dataset.select(dataset.labels > 0))
