"""What a cell trains and is tested on."""

from fnmatch import fnmatch
from itertools import pairwise

import numpy as np
import pytest

from common.data.dataset import Dataset
from common.errors import ConfigError
from common.task import HAM10000
from simulations.study.cells import Arm, Cell, arms, cut, folders_of, plan
from simulations.study.definition import Study

SPREADS = {
    "pooled": {"scheme": "pooled"},
    "natural": {"scheme": "natural"},
    "dirichlet": {"scheme": "dirichlet", "sites": 3, "alpha": 0.5},
    "alone": {"scheme": "alone"},
}


def make_study(**changes) -> Study:
    """Return a study of two routes on every spread."""
    values = {
        "folds": 3,
        "scales": [0.25, 0.5, 1.0],
        "routes": {"svm": {}, "net": {"method": "finetune"}},
        "spreads": SPREADS,
        "arms": [
            {"route": "svm", "spreads": list(SPREADS), "curve": ["pooled", "dirichlet"]},
            {"route": "net", "spreads": ["pooled"]},
        ],
        **changes,
    }
    return Study.model_validate(values)


@pytest.fixture(scope="module")
def dataset(synthetic_folder) -> Dataset:
    return Dataset.open(synthetic_folder)


def _lesions(dataset: Dataset) -> set[str]:
    return set(dataset.lesions)


def test_no_cell_holds_a_test_lesion_and_all_arms_have_the_same(dataset):
    study = make_study()
    cells = plan(study, dataset)
    assert len(cells) == len(set(cells)) == 3 * len(arms(study, dataset))
    tested = {}
    for cell in cells:
        found = cut(study, dataset, cell)
        assert not _lesions(found.training) & _lesions(found.test)
        assert tested.setdefault(cell.fold, found.test.images) == found.test.images
        rows = np.concatenate(list(found.parts.values()))
        assert sorted(rows) == list(range(len(found.training)))
        # What a run chooses by lies in folds of whole training lesions.
        splits = {lesion: set() for lesion in found.training.lesions}
        for image in found.training.images:
            splits[image.lesion_id].add(image.split)
        assert all(len(folds) == 1 for folds in splits.values())
        inner = study.config(cell.arm.route).folds
        assert set(found.training.splits) <= set(map(str, range(inner)))
    every = [lesion for images in tested.values() for lesion in {i.lesion_id for i in images}]
    assert sorted(every) == sorted(_lesions(dataset))
    for images in tested.values():
        assert {image.dx for image in images} == set(HAM10000.codes) & {
            i.dx for i in dataset.images
        }


def test_smaller_scales_are_parts_of_larger_ones_at_the_same_sites(dataset):
    study = make_study()
    for spread in ("pooled", "dirichlet"):
        found = [
            cut(study, dataset, Cell(Arm("svm", spread, "", scale), 1)) for scale in study.scales
        ]
        for small, large in pairwise(found):
            assert _lesions(small.training) < _lesions(large.training)
            for site, rows in small.parts.items():
                own = _lesions(small.training.select(rows))
                assert own <= _lesions(large.training.select(large.parts[site]))
        share = len(_lesions(found[0].training)) / len(_lesions(found[-1].training))
        assert share == pytest.approx(0.25, abs=0.05)
        assert set(found[0].training.labels) == set(found[-1].training.labels)


def test_a_source_alone_trains_on_its_own_and_is_tested_on_all(dataset):
    study = make_study()
    together = cut(study, dataset, Cell(Arm("svm", "natural", "", 1.0), 0))
    sites = [arm.site for arm in arms(study, dataset) if arm.site]
    assert sites == list(together.parts)
    for site in sites:
        found = cut(study, dataset, Cell(Arm("svm", "alone", site, 1.0), 0))
        assert list(found.parts) == [site]
        assert found.test == together.test
        own = together.training.select(together.parts[site])
        assert _lesions(found.training) == _lesions(own)


def test_a_share_of_the_training_lesions_lacks_the_diagnosis(dataset):
    some = {"scheme": "natural", "unlabelled": {"synth_a": 0.5, "synth_b": 1}}
    study = make_study(spreads=SPREADS | {"some": some, "alone": some | {"scheme": "alone"}})
    whole = cut(study, dataset, Cell(Arm("svm", "natural", "", 1.0), 0))
    found = cut(study, dataset, Cell(Arm("svm", "some", "", 1.0), 0))
    assert found.test == whole.test
    blank = np.array([not image.dx for image in found.training.images])
    told = [image.dx for image in whole.training.images]
    assert all(b or i.dx == dx for b, i, dx in zip(blank, found.training.images, told, strict=True))
    for site, rows in found.parts.items():
        own, site_labels = found.training.lesions[rows], whole.training.labels[rows]
        for label in np.unique(site_labels):
            of_label = site_labels == label
            lacking = len(set(own[of_label & blank[rows]])) / len(set(own[of_label]))
            n = len(set(own[of_label]))
            assert lacking == pytest.approx(some["unlabelled"].get(site, 0), abs=0.5 / n)
    alone = cut(study, dataset, Cell(Arm("svm", "alone", "synth_b", 1.0), 0))
    assert not any(image.dx for image in alone.training.images)


def test_more_folds_than_lesions_of_a_class_are_named(dataset):
    labels = dataset.by_lesion.labels
    counts = np.bincount(labels, minlength=len(HAM10000.codes))
    least = int(counts.min())
    assert plan(make_study(folds=least), dataset)
    with pytest.raises(ConfigError) as refused:
        plan(make_study(folds=least + 1), dataset)
    expected = f"'folds' is {least + 1}, but {dataset.folder} has {least} lesions of "
    assert str(refused.value).startswith(expected)
    assert str(refused.value).endswith(f"ask for at most {least}")


def test_names_of_cells_are_names_of_folders(dataset):
    names = [cell.name for cell in plan(make_study(), dataset)]
    assert len(names) == len(set(names))
    assert all(name.replace("_", "").replace("-", "").isalnum() for name in names)


def test_an_arms_folders_are_found_by_its_name(dataset):
    """Those of its own folds, where it has a part of the data too."""
    cells = plan(make_study(), dataset)
    for arm in {cell.arm for cell in cells}:
        found = [cell for cell in cells if fnmatch(cell.name, folders_of(arm.name))]
        assert {cell.arm for cell in found} == {arm}
        assert len(found) == 3
