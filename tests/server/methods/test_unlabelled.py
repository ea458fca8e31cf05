"""Images without a diagnosis take part in fine-tuning, and in nothing that is counted."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client.egress.questions import Question
from client.methods.finetune import answer
from client.site import Site
from common.config.run import RunConfig
from common.data.dataset import Dataset
from common.data.image import PSEUDO_LABEL, TRAIN
from common.data.splits import TEST
from common.errors import DataError
from common.networks.network import HEAD
from simulations.data.partition import write_sites
from simulations.data.unlabelled import without_labels
from simulations.runtimes.experiment import simulate
from tests.finetuning import changed, model_of, quick, small_dataset, training_log

BLANK, FULL, PARTLY = SITES = ("blank", "full", "partly")


def _parts(dataset: Dataset) -> dict[str, np.ndarray]:
    """Divide lesions over three sites, of which one has no test lesion."""
    number = dataset.by_lesion.index % 3
    parts = {name: np.flatnonzero(number == k) for k, name in enumerate(SITES)}
    parts[BLANK] = parts[BLANK][dataset.splits[parts[BLANK]] != TEST]
    return parts


@pytest.fixture(scope="module")
def dataset(synthetic_folder: Path) -> Dataset:
    return small_dataset(synthetic_folder, 60)


@pytest.fixture(scope="module")
def base(dataset, network_file, tmp_path_factory) -> RunConfig:
    """Write the sites: one without a diagnosis, one with half of them, one with all."""
    folder, parts = tmp_path_factory.mktemp("unlabelled"), _parts(dataset)
    written = without_labels(dataset, parts, {BLANK: 1.0, PARTLY: 0.5}, 0)
    write_sites(written, parts, folder / "sites", link=True)
    return quick(folder, network_file)


def _site(config: RunConfig, name: str, out: Path, **changes: Any) -> Site:
    assert config.sites is not None
    return Site(config.sites / name, changed(config, out, **changes))


def _counts(site: Site) -> np.ndarray:
    return answer(site, Question(1, "1", "counts")).to_record()["images"]


def test_a_site_without_a_diagnosis_takes_part_plain_and_in_secure_sums(base, dataset, tmp_path):
    found = {}
    for secure in (False, True):
        # One round, since sums that differ in a last digit may tip a later pseudo-label.
        changes = {"stages": HEAD, "rounds": 1, "unlabelled_weight": 0.5}
        run = changed(base, tmp_path / str(secure), secure=secure, **changes)
        metrics = simulate(run)
        assert not metrics["data"]["left_out"]
        assert metrics["data"]["sites"][BLANK]["images"] == len(_parts(dataset)[BLANK])
        assert metrics["overall"]["n"] == (dataset.splits == TEST).sum() - _lost(dataset)
        assert all(np.isfinite(line["loss"]) for line in training_log(run))
        found[secure] = model_of(run).weights
    for name, plain in found[False].items():
        np.testing.assert_allclose(found[True][name], plain, rtol=1e-3, atol=1e-5)


def _lost(dataset: Dataset) -> int:
    """Return how many test images lie at no site."""
    kept = np.concatenate(list(_parts(dataset).values()))
    return int((dataset.splits == TEST).sum() - (dataset.splits[kept] == TEST).sum())


def test_without_weight_they_are_as_if_they_were_not_there(base, dataset, tmp_path):
    ignored = changed(base, tmp_path / "ignored", quorum=2)
    simulate(ignored)
    parts = {name: images for name, images in _parts(dataset).items() if name != BLANK}
    blank = without_labels(dataset, parts, {PARTLY: 0.5}, 0)
    known = {k: i[[bool(blank.images[j].dx) for j in i]] for k, i in parts.items()}
    write_sites(dataset, known, tmp_path / "known", link=True)
    alone = changed(base, tmp_path / "alone", sites=tmp_path / "known", quorum=2)
    simulate(alone)
    used = changed(base, tmp_path / "used", unlabelled_weight=1)
    simulate(used)
    of_alone, of_used = model_of(alone).weights, model_of(used).weights
    for name, array in model_of(ignored).weights.items():
        np.testing.assert_array_equal(array, of_alone[name])
    assert not np.array_equal(of_alone["head.weight"], of_used["head.weight"])


def test_all_stages_learn_of_them_in_secure_sums(base, tmp_path):
    run = changed(base, tmp_path / "run", unlabelled_weight=0.5, secure=True)
    assert not simulate(run)["data"]["left_out"]
    assert all(np.isfinite(line["loss"]) for line in training_log(run))
    assert model_of(run).weights.keys() > {"head.weight", "head.bias"}


@pytest.mark.parametrize("number", [0, 2, 4])
def test_they_count_as_images_in_the_average_alone(base, tmp_path, number):
    asked = {}
    for name in SITES:
        site = _site(base, name, tmp_path / name, unlabelled_weight=0.25)
        labelled = len(site.part("train"))
        question = _round(site, number)
        asked[name] = update = answer(site, question)
        # An epoch: every image once.
        assert float(update.weight) == pytest.approx(labelled + 0.25 * len(site.unlabelled))
        assert any(array.any() for array in update.tensors.values())
        again = answer(site, question).to_record()
        assert all((again[n] == a).all() for n, a in update.to_record().items())
    assert not len(_site(base, BLANK, tmp_path / "x", unlabelled_weight=1).part("train"))
    assert asked[BLANK].loss > 0


def _round(site: Site, number: int) -> Question:
    from client.egress.allowlist.finetune import QUESTIONS

    values = {"round": number, "run": "0a" * 8, "counts": [5, 4, 3, 2, 1, 30, 2], "images": 60}
    forms = QUESTIONS["train"].arrays(site, values)
    rng = np.random.default_rng(1)
    arrays = {n: rng.random(form.shape, np.float32) / 100 for n, form in forms.items()}
    return Question(1, "1", "train", arrays, {"question": "train", **values})


def test_nothing_of_them_is_counted_or_judged(base, tmp_path):
    for name in SITES:
        without = _site(base, name, tmp_path / "without") if name != BLANK else None
        with_them = _site(base, name, tmp_path / "with", unlabelled_weight=1)
        expected = _counts(without) if without else 0
        np.testing.assert_array_equal(_counts(with_them), expected)
        for part in ("validation", "test"):
            assert len(with_them.part(part)) == (len(without.part(part)) if without else 0)
    with pytest.raises(DataError, match="without a row that can be used"):
        assert _site(base, BLANK, tmp_path / "without").dataset


def test_no_image_of_a_held_out_lesion_is_trained_on(base, dataset, tmp_path):
    """Not even where another image of the lesion has no diagnosis."""
    held_out = np.isin(dataset.splits, (TEST, "0"))
    several = dataset.by_lesion.sizes[dataset.by_lesion.index] > 1
    lesion = dataset.lesions[np.flatnonzero(held_out & several)[0]]
    one = np.flatnonzero(dataset.lesions == lesion)[0]
    images = list(dataset.images)
    images[one] = replace(images[one], dx="")
    every = {"all": np.arange(len(dataset))}
    write_sites(replace(dataset, images=tuple(images)), every, tmp_path / "sites", link=True)
    site = _site(changed(base, tmp_path, sites=tmp_path / "sites"), "all", tmp_path)
    assert len(site.dataset) == len(dataset) - 1
    site = Site(site.folder, changed(site.config, tmp_path, unlabelled_weight=1))
    assert not len(site.unlabelled)


def test_pseudo_labels_of_an_earlier_model_are_no_class_frequencies(base, dataset, tmp_path):
    train = np.flatnonzero(~np.isin(dataset.splits, (TEST, "0")))
    odd = dataset.by_lesion.index[train] % 2 == 1
    images = list(dataset.images)
    for i in train[odd]:
        images[i] = replace(images[i], dx_type=PSEUDO_LABEL, split=TRAIN)
    every = {"all": np.arange(len(dataset))}
    write_sites(replace(dataset, images=tuple(images)), every, tmp_path / "sites", link=True)
    site = _site(changed(base, tmp_path, sites=tmp_path / "sites"), "all", tmp_path)
    assert len(site.part("train")) == len(train)
    known = np.bincount(dataset.labels[train[~odd]], minlength=7)
    np.testing.assert_array_equal(_counts(site), known)
