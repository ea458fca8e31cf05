"""Every layout that HAM10000 is found in opens as the same data."""

import shutil
import zipfile
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

from common.data.dataset import Dataset
from common.data.tables.ham10000 import METADATA_FILE, write_metadata
from common.errors import DataError
from common.task import HAM10000

PARTS = ("HAM10000_images_part_1", "HAM10000_images_part_2")


def as_published(folder: Path) -> None:
    """Leave the layout as it is generated."""


def lower_case(folder: Path) -> None:
    for part in PARTS:
        (folder / part).rename(folder / part.lower())


def one_folder(folder: Path) -> None:
    (folder / "images").mkdir()
    for image in folder.glob("HAM10000_images*/*.jpg"):
        image.rename(folder / "images" / image.name)
    for part in PARTS:
        (folder / part).rmdir()


def flat(folder: Path) -> None:
    for image in folder.glob("HAM10000_images*/*.jpg"):
        image.rename(folder / image.name)
    for part in PARTS:
        (folder / part).rmdir()


def zipped(folder: Path) -> None:
    for part, root in zip(PARTS, (".", PARTS[1]), strict=True):
        with zipfile.ZipFile(folder / f"{part}.zip", "w") as archive:
            for image in (folder / part).iterdir():
                archive.write(image, Path(root) / image.name)
            archive.writestr("__MACOSX/._SYNTH_0000000.jpg", b"resource fork")
        shutil.rmtree(folder / part)


def linked(folder: Path) -> None:
    for part in PARTS:
        (folder / part).rename(folder.parent / part)
        (folder / part).mkdir()
        for image in (folder.parent / part).iterdir():
            (folder / part / image.name).symlink_to(image)


def tab_separated(folder: Path) -> None:
    table = folder / METADATA_FILE
    (folder / "HAM10000_metadata").write_text(table.read_text().replace(",", "\t"))
    table.unlink()


def beside_the_test_images(folder: Path) -> None:
    shutil.copytree(folder / PARTS[0], folder / "ISIC2018_Task3_Test_Images")


@pytest.mark.parametrize(
    "lay_out",
    [
        as_published,
        lower_case,
        one_folder,
        flat,
        zipped,
        linked,
        tab_separated,
        beside_the_test_images,
    ],
)
def test_every_layout_opens_as_the_same_data(
    synthetic_folder: Path, tmp_path: Path, lay_out: Callable[[Path], None]
) -> None:
    folder = tmp_path / "data"
    shutil.copytree(synthetic_folder, folder)
    lay_out(folder)
    original, data = Dataset.open(synthetic_folder), Dataset.open(folder)
    assert data.images == original.images
    for image in data.images[::40]:
        assert data.read(image.image_id) == original.read(image.image_id)


def test_the_arrays_describe_the_images_in_order(synthetic_folder: Path) -> None:
    data = Dataset.open(str(synthetic_folder))
    ids = [image.image_id for image in data.images]
    assert ids == sorted(ids)
    assert [HAM10000.codes[label] for label in data.labels] == [image.dx for image in data.images]
    assert data.sources.tolist() == [image.source for image in data.images]
    lesions = data.by_lesion
    np.testing.assert_array_equal(lesions.labels[lesions.index], data.labels)
    np.testing.assert_array_equal(np.bincount(lesions.index), lesions.sizes)
    assert data.synthetic


def test_select_keeps_the_order_given_and_takes_masks(synthetic_folder: Path) -> None:
    data = Dataset.open(synthetic_folder)
    assert data.select(np.array([5, 2])).images == (data.images[5], data.images[2])
    np.testing.assert_array_equal(data.select(data.labels == 5).labels == 5, True)


def test_the_table_survives_writing_with_and_without_splits(
    synthetic_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(synthetic_folder, tmp_path, dirs_exist_ok=True)
    data = Dataset.open(tmp_path)
    for split in ("", "test", "3"):
        data = data.with_splits([split] * len(data))
        write_metadata(tmp_path, data.images)
        assert Dataset.open(tmp_path).images == data.images
        assert ("split" in (tmp_path / METADATA_FILE).read_text().split("\n")[0]) == bool(split)


def test_a_table_without_the_dataset_column_and_with_odd_ages_opens(
    synthetic_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "images").symlink_to(synthetic_folder / PARTS[0])
    (tmp_path / METADATA_FILE).write_text(
        "image_id,lesion_id,dx,dx_type,age,sex,localization\n"
        "SYNTH_0000000,L1,nv,histo,old,male,back\n"
        "SYNTH_0000001,L2,mel,histo,nan,male,back\n"
        "SYNTH_0000002,L3,mel,histo,45,male\n"
    )
    data = Dataset.open(tmp_path)
    assert [image.age for image in data.images] == [None, None, 45.0]
    assert data.images[2].localization == data.images[2].source == data.images[2].split == ""
    assert not data.synthetic


def read_some(data: Dataset) -> list[bytes]:
    return [data.read(image.image_id) for image in data.images[:50]]


def test_forked_processes_read_one_archive_at_once(synthetic_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(synthetic_folder, tmp_path, dirs_exist_ok=True)
    zipped(tmp_path)
    data = Dataset.open(tmp_path)
    expected = read_some(data)
    with get_context("fork").Pool(2) as pool:
        assert pool.map(read_some, [data] * 4) == [expected] * 4


def test_an_image_that_vanished_is_named(synthetic_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(synthetic_folder, tmp_path, dirs_exist_ok=True)
    data = Dataset.open(tmp_path)
    (tmp_path / PARTS[0] / "SYNTH_0000000.jpg").unlink()
    with pytest.raises(DataError, match=r"SYNTH_0000000\.jpg cannot be read .* restore the file"):
        data.read("SYNTH_0000000")


@pytest.mark.real_data
def test_the_real_data_is_what_its_datasheet_says(real_data: Path) -> None:
    data = Dataset.open(real_data)
    assert len(data) == 10015
    assert np.bincount(data.labels).tolist() == [327, 514, 1099, 115, 1113, 6705, 142]
    assert np.bincount(data.by_lesion.sizes)[1:].tolist() == [5514, 1423, 490, 34, 5, 4]
    assert sum(image.age is None for image in data.images) == 57
    assert not data.synthetic
