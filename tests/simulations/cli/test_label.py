"""Sites without diagnoses: what a model is sure of is trained on, and never judged on."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from client.predict.pseudo_labels import surest
from client.site import Site
from common.config.run import RunConfig
from common.data.dataset import Dataset
from common.data.image import PSEUDO_LABEL, TRAIN
from common.data.tables.ham10000 import METADATA_FILE
from common.errors import DataError
from common.models.file import load_model
from server.run.folder import model_file
from tests.commands import Type, is_one_error


@pytest.fixture
def few(fedderm: Type, synthetic_folder: Path, tmp_path: Path) -> Path:
    """Divide images over three sites; most training lesions of two lose their diagnosis."""
    out = tmp_path / "few"
    options = ("--scheme", "iid", "--sites", 3, "--folds", 2, "--test-fraction", 0.3, "--link")
    without = ("--unlabelled", "site_00=0.8", "--unlabelled", "site_01=1")
    code, said, error = fedderm(
        "data", "partition", synthetic_folder, "--out", out, *options, *without
    )
    assert code == 0, error
    assert "unlabelled" in said
    return out


def test_only_training_lesions_lose_their_diagnosis(few, synthetic_folder):
    whole = {image.image_id: image for image in Dataset.open(synthetic_folder).images}
    left = {site.name: Dataset.open(site) for site in few.iterdir() if site.is_dir()}
    assert not left["site_02"].undiagnosed
    assert {image.split for image in left["site_01"].images} == {"test"}
    for dataset in left.values():
        assert all(image.split != "test" for image in dataset.undiagnosed)
        assert all(whole[image.image_id].dx == image.dx for image in dataset.images)
        blank = {image.lesion_id for image in dataset.undiagnosed}
        assert not blank & {image.lesion_id for image in dataset.images}


def test_what_a_model_is_sure_of_is_trained_on_and_not_judged_on(
    fedderm: Type, few, finished, cached: RunConfig, tmp_path
):
    site, out = few / "site_00", tmp_path / "more" / "site_00"
    code, said, error = fedderm(
        "label", finished, site, "--out", out, "--share", 0.5, "--cache", cached.cache
    )
    assert code == 0, error
    before, after = Dataset.open(site), Dataset.open(out)
    given = [image for image in after.images if image.dx_type == PSEUDO_LABEL]
    assert f"{len(given)} of {len(before.undiagnosed)} images" in said
    assert len(after.images) == len(before.images) + len(given)
    assert len(after.undiagnosed) == len(before.undiagnosed) - len(given)
    model = load_model(model_file(finished))
    missing = {image.image_id: image for image in before.undiagnosed}
    lesions = Counter(image.lesion_id for image in before.undiagnosed)
    for image in given:
        assert image.image_id in missing
        if lesions[image.lesion_id] > 1:
            continue
        alone = Dataset(before.folder, (missing[image.image_id],), before.files)
        chances = model.basis.probabilities(model.dataset_scores(alone, cached.cache))[0]
        likeliest = np.argsort(-chances / model.basis.base_rates)[:2], np.argsort(-chances)[:2]
        assert model.task.codes.index(image.dx) in np.concatenate(likeliest)
    run = cached.model_copy(update={"folds": 2})
    read = Site(out, run)
    pseudo = np.array([image.dx_type == PSEUDO_LABEL for image in read.dataset.images])
    assert (read.dataset.splits[pseudo] == TRAIN).all()
    assert pseudo[read.part("train")].sum() == pseudo.sum()
    assert not pseudo[read.part("validation")].any()
    assert not pseudo[read.part("test")].any()
    assert (read.training_records().fold == -2).sum() == pseudo.sum() * run.views


def test_a_site_without_any_diagnosis_is_labelled_and_takes_part(
    fedderm: Type, few, finished, cached: RunConfig, settings, tmp_path
):
    site = few / "site_01"
    for image in Dataset.open(site).images:  # of the test
        (site / "HAM10000_images_part_1" / f"{image.image_id}.jpg").unlink()
    table = site / METADATA_FILE
    lines = table.read_text().splitlines(keepends=True)
    table.write_text("".join(line for line in lines if ",test" not in line))
    with pytest.raises(DataError, match="table without a row that can be used"):
        Dataset.open(site)
    out = tmp_path / "sites" / "site_01"
    options = ("--share", 0.5, "--cache", cached.cache)
    code, _, error = fedderm("label", finished, site, "--out", out, *options)
    assert code == 0, error
    (tmp_path / "sites" / "site_02").symlink_to(few / "site_02", target_is_directory=True)
    run = tmp_path / "run"
    arguments = ("--scheme", "folders", "--out", run, *settings)
    code, _, error = fedderm("simulate", tmp_path / "sites", *arguments)
    assert code == 0, error
    metrics = json.loads((run / "run" / "metrics.json").read_text())
    given = [i for i in Dataset.open(out).images if i.dx_type == PSEUDO_LABEL]
    assert metrics["data"]["sites"]["site_01"]["images"] == len(given) > 0
    assert metrics["sites"]["site_01"]["n"] == 0


def test_of_each_diagnosis_the_surest_are_taken_as_many_as_are_expected():
    rng = np.random.default_rng(0)
    chances, frequencies = rng.dirichlet(np.ones(4), 400), np.array([0.4, 0.3, 0.2, 0.1])
    sure, label = surest(chances, frequencies, 0.5), chances.argmax(axis=1)
    for k, frequency in enumerate(frequencies):
        own, taken = chances[label == k, k], chances[sure & (label == k), k]
        assert len(taken) == min(len(own), round(0.5 * 400 * frequency))
        assert taken.min() >= np.sort(own)[-len(taken)]


def test_what_cannot_be_labelled_is_one_line(
    fedderm: Type, few, finished, synthetic_folder, tmp_path
):
    out = tmp_path / "out"
    got = fedderm("label", finished, synthetic_folder, "--out", out)
    assert is_one_error(*got)
    assert "no row with an empty diagnosis" in got[2]
    for unlabelled, message in (("nobody=1", "there is no site 'nobody'"), ("2", "is no share")):
        got = fedderm(
            "data", "partition", synthetic_folder, "--out", out, "--unlabelled", unlabelled
        )
        assert is_one_error(*got)
        assert message in got[2]
    assert not out.exists()
