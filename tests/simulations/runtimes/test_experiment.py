"""Site folders that a run may find again, whole or not at all."""

import threading
import time

import numpy as np
import pytest

from client.open_site import site_folders
from common.data.dataset import IMAGE_FOLDER, Dataset
from common.data.tables.ham10000 import METADATA_FILE
from common.errors import DataError
from simulations.runtimes import experiment
from simulations.runtimes.experiment import make_sites


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


def images_of(sites):
    return sorted(i.image_id for folder in site_folders(sites) for i in Dataset.open(folder).images)


def test_sites_cut_short_by_a_crash_are_written_again(dataset, tmp_path, monkeypatch):
    def crash(site, out, *, link):
        write_site(site, out, link=link)
        raise KeyboardInterrupt

    write_site = experiment.write_site
    with monkeypatch.context() as patch:
        patch.setattr(experiment, "write_site", crash)
        with pytest.raises(KeyboardInterrupt):
            make_sites(dataset, tmp_path / "sites", "iid", 3, 1.0, 0)
    assert not (tmp_path / "sites").exists()
    make_sites(dataset, tmp_path / "sites", "iid", 3, 1.0, 0)
    assert [path.name for path in tmp_path.iterdir()] == ["sites"]
    assert images_of(tmp_path / "sites") == [image.image_id for image in dataset.images]


def test_sites_that_another_run_is_writing_are_waited_for(dataset, tmp_path, monkeypatch, caplog):
    """Two runs over one partition began to write it at once, into each other's folder."""

    def slowly(site, out, *, link):
        if not runs[1].ident:
            runs[1].start()
            while "waiting for its end" not in caplog.text:
                time.sleep(0.01)
        write_site(site, out, link=link)

    def work():
        make_sites(dataset, tmp_path / "sites", "iid", 3, 1.0, 0)
        found.append(images_of(tmp_path / "sites"))

    write_site = experiment.write_site
    monkeypatch.setattr(experiment, "write_site", slowly)
    found, runs = [], [threading.Thread(target=work, daemon=True) for _ in range(2)]
    runs[0].start()
    for run in runs:
        while not run.ident:
            time.sleep(0.01)
        run.join(timeout=60)
    assert found == [[image.image_id for image in dataset.images]] * 2
    assert [path.name for path in tmp_path.iterdir()] == ["sites"]


@pytest.mark.parametrize("what", ["table", "link", "lost"])
def test_sites_that_are_no_more_what_was_written_are_refused(dataset, tmp_path, what):
    make_sites(dataset, tmp_path / "sites", "iid", 3, 1.0, 0)
    table = tmp_path / "sites" / "site_01" / METADATA_FILE
    image, other = sorted((tmp_path / "sites" / "site_01" / IMAGE_FOLDER).iterdir())[:2]
    if what == "table":
        table.write_text(table.read_text().replace("nv", "nw", 1))
    elif what == "link":
        target = image.readlink()
        image.unlink()
        image.symlink_to(target.with_name(other.name))
    else:
        image.unlink()
    with pytest.raises(DataError, match=r"site_01 is not what was written there; remove .*sites$"):
        make_sites(dataset, tmp_path / "sites", "iid", 3, 1.0, 0)
