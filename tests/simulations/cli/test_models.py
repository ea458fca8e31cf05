"""Versions of a model are kept, a promotion passes the gate, a rollback is one command."""

import json
import shutil
from dataclasses import replace
from hashlib import sha256

import pytest

from common.answers.verdict import REFUSED
from common.models.file import load_model
from common.models.registry import MODEL_FILE, Registry
from server.run.folder import METRICS_FILE, RUN, model_file
from tests.commands import is_one_error, metrics_of


def digest(run) -> str:
    return sha256(model_file(run).read_bytes()).hexdigest()


@pytest.fixture
def run_like(finished, tmp_path):
    """Make runs of other models, each with what its gate said."""

    def make(name: str, gate: dict | None = None):
        folder = shutil.copytree(finished / RUN, tmp_path / name)
        model = load_model(folder / MODEL_FILE)
        replace(model, weights=model.weights * (1 + len(name) / 100)).save(folder / MODEL_FILE)
        values = metrics_of(folder) | ({} if gate is None else {"gate": gate})
        (folder / METRICS_FILE).write_text(json.dumps(values))
        return folder

    return make


@pytest.fixture
def models(fedderm, finished, tmp_path):
    folder = tmp_path / "models"
    code, shown, _ = fedderm("models", "promote", folder, finished)
    assert (code, shown) == (0, f"current: version 1, {digest(finished)[:16]} (SHA-256)\n")
    return folder


def accepted(old) -> dict:
    return {"old": digest(old), "accepted": True, "reason": ""}


def test_answers_name_the_current_version_and_are_logged(
    fedderm, models, run_like, synthetic_folder, features_at_hand
):
    new = run_like("new", accepted(models))
    image = next(synthetic_folder.rglob("*.jpg"))
    for version in (1, 2):
        code, shown, _ = fedderm("predict", models, image, "--json")
        assert code == 0
        assert [each["model"] for each in json.loads(shown)] == [digest(models)]
        assert f"Version {version}." in fedderm("predict", models, image)[1]
        if version == 1:
            assert fedderm("models", "promote", models, new)[0] == 0
    lines = [json.loads(line) for line in (models / "answers.jsonl").read_text().splitlines()]
    assert [line["version"] for line in lines] == [1, 1, 2, 2]
    assert lines[-1]["sha256"] == digest(new)
    assert {line["images"] for line in lines} == {1}


def test_what_the_gate_does_not_let_through_is_not_promoted(fedderm, models, run_like):
    before = {f: f.read_bytes() for f in models.rglob("*") if f.is_file()}
    worse = run_like("worse", {**accepted(models), "accepted": False, "reason": "it is worse"})
    code, shown, _ = fedderm("models", "promote", models, worse)
    assert (code, shown) == (REFUSED, "The old model stays: it is worse.\n")
    other = run_like("compared with another", {**accepted(models), "old": "0" * 64})
    for run in (other, run_like("ungated")):
        refused = fedderm("models", "promote", models, run)
        assert is_one_error(*refused)
        assert "nobody compared" in refused[2]
    assert "already" in fedderm("models", "promote", models, models, "--ungated")[2]
    assert {f: f.read_bytes() for f in models.rglob("*") if f.is_file()} == before
    assert fedderm("models", "promote", models, other, "--ungated")[0] == 0


def test_a_rollback_goes_to_what_was_current_before(fedderm, models, run_like):
    for name in ("two", "three"):
        assert fedderm("models", "promote", models, run_like(name), "--ungated")[0] == 0
    assert fedderm("models", "rollback", models)[1].startswith("current: version 2,")
    # What was rolled back is none to go back to, and the next version has a number of its own.
    assert fedderm("models", "promote", models, run_like("fourth"), "--ungated")[0] == 0
    assert Registry.open(models).promoted == (1, 2, 4)
    assert "these are: 1, 2" in fedderm("models", "rollback", models, 3)[2]
    assert fedderm("models", "rollback", models, 1)[0] == 0
    _, shown, _ = fedderm("models", "list", models)
    assert [line for line in shown.splitlines() if line.endswith("| current |")] == [
        line for line in shown.splitlines() if line.startswith("| 1 |")
    ]
    assert "no version was current before 1" in fedderm("models", "rollback", models)[2]


def test_what_is_damaged_or_gone_is_one_line_and_the_rest_stays(
    fedderm, models, run_like, tmp_path, synthetic_folder
):
    for name in ("two", "three"):
        fedderm("models", "promote", models, run_like(name), "--ungated")
    shutil.rmtree(models / "2")
    refused = fedderm("models", "rollback", models)
    assert is_one_error(*refused)
    assert "version 2 in" in refused[2]
    assert Registry.open(models).current.number == 3
    (models / "3" / MODEL_FILE).write_bytes(b"x")
    refused = fedderm("predict", models, synthetic_folder)
    assert is_one_error(*refused)
    assert "version 3 in" in refused[2]
    assert "was changed" in refused[2]
    assert fedderm("models", "rollback", models, 1)[0] == 0
    file = models / "registry.json"
    file.write_text(file.read_text().replace('"number": 1', '"number": 7'))
    for words in (("list", models), ("rollback", models), ("promote", models, run_like("four"))):
        refused = fedderm("models", *words)
        assert is_one_error(*refused)
        assert "registry.json is damaged; put a copy of it back" in refused[2]
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    assert "not empty" in fedderm("models", "promote", tmp_path / "full", run_like("five"))[2]
    assert "no model registry" in fedderm("models", "rollback", tmp_path / "none")[2]
