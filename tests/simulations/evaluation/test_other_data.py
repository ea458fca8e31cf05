"""Models on every lesion of other data: known diagnoses, new images, and figures by site."""

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow
from sklearn.metrics import accuracy_score, confusion_matrix, recall_score, roc_auc_score

from common.data.dataset import Dataset
from common.data.image import Image
from common.data.splits import TEST
from common.data.tables.ham10000 import write_metadata
from common.errors import DataError
from common.models.file import load_model
from common.task import HAM10000, Task
from server.run.folder import MODEL_FILE
from simulations.evaluation.other_data import read_for
from simulations.evaluation.trained_on import Pictures, met_again
from simulations.runtimes.experiment import with_splits
from tests.commands import is_one_error


@pytest.fixture
def cache(cached) -> str:
    return f"cache={cached.cache}"


def _evaluate(fedderm, file, *arguments):
    code, shown, err = fedderm("evaluate", *arguments, "--out", file)
    assert (code, err) == (0, "")
    return json.loads(file.read_text()), shown


def test_every_lesion_is_judged_as_scikit_learn_does(
    fedderm, other, cached, cache, finished, tuned, tmp_path
):
    values, shown = _evaluate(
        fedderm, tmp_path / "figures.json", other, finished, tuned, cache, "--all"
    )
    known, others = read_for(other, HAM10000)
    assert others[0].images + len(known) == 90
    assert (values["images"], values["lesions"]) == (len(known), len(set(known.lesions)))
    chosen = values["selection"]
    assert chosen["others"] == [
        {"diagnosis": "scc", "counts_as": "", "images": others[0].images, "lesions": 2}
    ]
    assert f"do not know them: scc ({others[0].images} images of 2 lesions)." in shown
    assert (chosen["left_out"], chosen["unchecked"]) == (0, [])
    assert "Not checked" not in shown
    for run, found in zip((finished, tuned), values["runs"], strict=True):
        model = load_model(run / "run" / MODEL_FILE)
        scores = model.dataset_scores(known, cached.cache)
        logits = model.basis.calibration[0] * scores + model.basis.calibration[1]
        chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        called = (chances / model.basis.base_rates).argmax(axis=1)
        matrix = confusion_matrix(known.labels, called, labels=range(len(values["classes"])))
        assert found["confusion"] == matrix.tolist()
        _agree(found["quality"], known.labels, called, chances)
        assert [site["site"] for site in found["sites"]] == sorted(set(known.sources))
        for site in found["sites"]:
            own = known.sources == site["site"]
            assert (site["images"], site["lesions"]) == (own.sum(), len(set(known.lesions[own])))
            _agree(site, known.labels[own], called[own], chances[own])
            assert f"| {site['balanced_accuracy']:.3f} " in shown
            assert f"{site['site']}: {site['lesions']} lesions, " in shown


def _agree(found, labels, called, chances):
    present = np.unique(labels)
    recall = recall_score(labels, called, labels=present, average="macro", zero_division=0)
    assert found["balanced_accuracy"] == pytest.approx(recall)
    assert found["accuracy"] == pytest.approx(accuracy_score(labels, called))
    low, high = found["balanced_accuracy_interval"]
    if len(present) == 1:
        assert (found["macro_auc"], low, high) == (None, None, None)
        return
    areas = [roc_auc_score(labels == c, chances[:, c]) for c in present]
    assert found["macro_auc"] == pytest.approx(np.mean(areas))
    assert low <= recall <= high


def test_images_that_were_trained_on_are_refused_or_left_out(
    fedderm, synthetic_folder, cached, cache, finished, tmp_path
):
    dataset = with_splits(synthetic_folder, cached)
    trained = dataset.splits != TEST
    refused = fedderm("evaluate", synthetic_folder, finished, cache, "--all")
    assert is_one_error(*refused)
    lesions = len(set(dataset.lesions[trained]))
    assert f"was trained on {trained.sum()} of the 120 images, of {lesions} " in refused[2]
    assert "--trained leave-out" in refused[2]
    leave = (synthetic_folder, finished, cache, "--all", "--trained", "leave-out")
    values, shown = _evaluate(fedderm, tmp_path / "left.json", *leave)
    usual, _ = _evaluate(fedderm, tmp_path / "usual.json", synthetic_folder, finished, cache)
    assert values["selection"]["left_out"] == trained.sum()
    assert f"Left out: {trained.sum()} images" in shown
    assert values["runs"] == usual["runs"]


def test_without_the_training_images_nobody_can_tell_until_they_are_named(
    fedderm, synthetic_folder, cached, cache, finished, tmp_path
):
    model = tmp_path / "moved.safetensors"
    shutil.copy(finished / "run" / MODEL_FILE, model)
    values, shown = _evaluate(
        fedderm, tmp_path / "figures.json", synthetic_folder, model, cache, "--all"
    )
    assert values["selection"]["unchecked"] == [str(model)]
    assert "Not checked: whether " in shown
    assert values["images"] == 120
    named = ("--trained-on", synthetic_folder)
    refused = fedderm("evaluate", synthetic_folder, model, cache, "--all", *named)
    assert is_one_error(*refused)
    assert "was trained on 120 of the 120 images" in refused[2]
    left = fedderm(
        "evaluate", synthetic_folder, model, cache, "--all", *named, "--trained", "leave-out"
    )
    assert is_one_error(*left)
    assert "trained on all its lesions" in left[2]
    # What the table of the training images keeps for testing was not trained on.
    marked = tmp_path / "marked"
    shutil.copytree(synthetic_folder, marked)
    dataset = with_splits(synthetic_folder, cached)
    write_metadata(marked, dataset.images)
    values, _ = _evaluate(
        fedderm,
        tmp_path / "marked.json",
        synthetic_folder,
        model,
        cache,
        *("--all", "--trained-on", marked, "--trained", "leave-out"),
    )
    assert values["images"] == np.sum(dataset.splits == TEST)
    only = fedderm("evaluate", synthetic_folder, model, cache, *named)
    assert is_one_error(*only)
    assert "add --all" in only[2]


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=12))
def test_a_lesion_is_met_again_with_all_its_images(images):
    """A copy under other names takes the lesion's other images with it, and no other lesion."""
    rows = [
        Image(f"i{n:02}", f"l{lesion}", "nv", "", None, "", "")
        for n, (lesion, _) in enumerate(images)
    ]
    dataset = Dataset(Path(), tuple(rows), {})
    names = [image.image_id for image in rows]
    hashes = np.random.default_rng(0).integers(0, 2**64, (len(images) + 1, 4), dtype=np.uint64)
    seen = [n for n, (_, met) in enumerate(images) if met]
    # Of what was trained on, every second has other bytes and a bit that differs.
    copied = [n for n in seen if n % 2]
    keys = [f"copy of {n}" if n in copied else f"{n}" for n in seen]
    trained = hashes[[*seen, len(images)]]
    trained[[seen.index(n) for n in copied], 0] ^= np.uint64(1)
    found = met_again(
        dataset,
        Pictures(names, [f"{n}" for n in range(len(images))], hashes[:-1]),
        Pictures([*(f"t{n:02}" for n in seen), "else"], [*keys, "else"], trained),
    )
    gone = {lesion for lesion, met in images if met}
    assert found.images.tolist() == [lesion in gone for lesion, _ in images]
    assert list(found.copies) == [(f"i{n:02}", f"t{n:02}") for n in copied]


def test_a_mapped_diagnosis_counts_as_the_tasks(other):
    task = Task.of(HAM10000.codes, mapping={"scc": "bcc"})
    known, others = read_for(other, task)
    assert len(known) == 90
    assert [(o.diagnosis, o.counts_as, o.lesions) for o in others] == [("scc", "bcc", 2)]
    plain, _ = read_for(other, HAM10000)
    mapped = set(known.lesions) - set(plain.lesions)
    assert len(mapped) == 2
    own = np.isin(known.lesions, list(mapped))
    assert {task.codes[label] for label in known.labels[own]} == {"bcc"}
    with pytest.raises(DataError, match="the models know none; they know benign, malignant"):
        read_for(other, Task.of(("benign", "malignant")))


def test_a_copy_that_was_resized_and_encoded_again_is_found_and_named(
    fedderm, other, cached, cache, finished, tmp_path
):
    copied, known = tmp_path / "copied", Dataset.open(other)
    shutil.copytree(other, copied)
    first = known.images[0]
    file = next(copied.rglob(f"{first.image_id}.*"))
    file.unlink()
    with Pillow.open(io.BytesIO(known.read(first.image_id))) as image:
        small = image.resize((image.width // 2, image.height // 2))
    small.save(file.with_suffix(".jpg"), quality=60)
    named = ("--all", "--trained-on", copied, "--trained", "leave-out")
    write_metadata(copied, [first])
    code, shown, err = fedderm("evaluate", other, finished, cache, *named, "--out", tmp_path / "f")
    assert code == 0, err
    selection = json.loads((tmp_path / "f").read_text())["selection"]
    assert selection["copies"] == [[first.image_id, first.image_id]]
    assert selection["left_out"] == np.sum(known.lesions == first.lesion_id)
    assert "1 encoded again or resized, found by what they show: " in shown
    refused = fedderm("evaluate", other, finished, cache, *named[:3])
    assert is_one_error(*refused)
    assert (
        f"(1 encoded again or resized, found by what they show: {first.image_id} of " in refused[2]
    )


def test_rows_that_nobody_can_use_are_counted_beside_unknown_diagnoses(other, tmp_path):
    """A diagnosis that is no known code, or none at all, is counted, not dropped in silence."""
    changed = tmp_path / "changed"
    shutil.copytree(other, changed)
    rows = Dataset.open(other).images
    odd = {rows[0].image_id: "wart", rows[1].image_id: "", rows[2].image_id: "wart"}
    write_metadata(
        changed, (replace(r, dx=odd.get(r.image_id, r.dx), lesion_id=r.image_id) for r in rows)
    )
    known, others = read_for(changed, HAM10000)
    found = {o.diagnosis: (o.counts_as, o.images, o.lesions) for o in others}
    assert found["wart"] == ("", 2, 2)
    assert found[""] == ("", 1, 1)
    assert len(known) + sum(o.images for o in others) == len(rows)


def test_a_site_of_the_matrix_is_the_evaluation_of_that_site_alone(
    fedderm, synthetic_folder, settings, cache, tmp_path
):
    """Each site's own model, and that of all sites, on the held-out lesions of each."""
    sites, runs = tmp_path / "sites", tmp_path / "runs"
    splits = ("--seed", 0, "--test-fraction", 0.3, "--folds", 2)
    fedderm("data", "partition", synthetic_folder, "--out", sites, "--link", *splits)
    largest = sorted(sites.iterdir(), key=lambda site: -len(Dataset.open(site)))[:2]
    assert fedderm("simulate", synthetic_folder, "--out", runs / "all", *settings)[0] == 0
    for site in largest:
        assert fedderm("centralized", site, "--out", runs / site.name, *settings)[0] == 0
    names = [runs / "all", *(runs / site.name for site in largest)]
    matrix, shown = _evaluate(
        fedderm, tmp_path / "matrix.json", synthetic_folder, *names, cache, "--matrix"
    )
    held_out = 0
    for site in matrix["runs"][0]["sites"]:
        held_out += site["lesions"]
    assert held_out == matrix["lesions"]
    for site in largest:
        alone, _ = _evaluate(fedderm, tmp_path / f"{site.name}.json", site, *names, cache)
        for single, run in zip(alone["runs"], matrix["runs"], strict=True):
            cell = next(cell for cell in run["sites"] if cell["site"] == site.name)
            assert (cell["images"], cell["lesions"]) == (alone["images"], alone["lesions"])
            for name in ("balanced_accuracy", "macro_auc"):
                assert cell[name] == single["quality"][name]
                bounds = cell[f"{name}_interval"]
                assert bounds == single["quality"][f"{name}_interval"]
                low, high = bounds
                assert f"{cell[name]:.3f} ({low:.3f} to {high:.3f})" in shown
