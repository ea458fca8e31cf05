"""Site folders that a run may find again, whole or not at all."""

import numpy as np
import pytest

from client.site import site_folders
from common.dataset import Dataset
from common.errors import DataError
from simulations import experiment
from simulations.experiment import make_sites


@pytest.fixture(scope="module")
def dataset(synthetic_folder) -> Dataset:
    return Dataset.open(synthetic_folder)


def test_the_same_partition_is_kept(dataset, tmp_path):
    make_sites(dataset, tmp_path / "sites", "iid", 3, 1.0, 0)
    (tmp_path / "sites" / "mark").touch()
    make_sites(dataset, tmp_path / "sites", "iid", 3, 1.0, 0)
    assert (tmp_path / "sites" / "mark").exists()


@pytest.mark.parametrize(
    ("scheme", "sites", "alpha", "seed"),
    [("iid", 4, 1.0, 0), ("dirichlet", 3, 1.0, 0), ("iid", 3, 0.5, 0), ("iid", 3, 1.0, 1)],
)
def test_another_partition_is_refused(dataset, tmp_path, scheme, sites, alpha, seed):
    make_sites(dataset, tmp_path / "sites", "iid", 3, 1.0, 0)
    with pytest.raises(DataError, match="holds another partition; name a new") as refusal:
        make_sites(dataset, tmp_path / "sites", scheme, sites, alpha, seed)
    assert "\n" not in str(refusal.value)


def test_other_images_or_splits_and_foreign_folders_are_refused(dataset, tmp_path):
    make_sites(dataset, tmp_path / "sites", "pooled", None, 1.0, 0)
    (tmp_path / "other").mkdir()
    splits = ["0"] * len(dataset)
    for images, out in (
        (dataset.select(np.arange(100)), "sites"),
        (dataset.with_splits(splits), "sites"),
        (dataset, "other"),
    ):
        with pytest.raises(DataError, match="holds another partition"):
            make_sites(images, tmp_path / out, "pooled", None, 1.0, 0)


def test_sites_cut_short_by_a_crash_are_written_again(dataset, tmp_path, monkeypatch):
    def crash(dataset, parts, out, *, link):
        write_sites(dataset, dict(list(parts.items())[:1]), out, link=link)
        raise KeyboardInterrupt

    write_sites = experiment.write_sites
    with monkeypatch.context() as patch:
        patch.setattr(experiment, "write_sites", crash)
        with pytest.raises(KeyboardInterrupt):
            make_sites(dataset, tmp_path / "sites", "iid", 3, 1.0, 0)
    assert not (tmp_path / "sites").exists()
    make_sites(dataset, tmp_path / "sites", "iid", 3, 1.0, 0)
    assert [path.name for path in tmp_path.iterdir()] == ["sites"]
    sites = [Dataset.open(folder) for folder in site_folders(tmp_path / "sites")]
    found = sorted(image.image_id for site in sites for image in site.images)
    assert found == [image.image_id for image in dataset.images]
