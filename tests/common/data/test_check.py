"""Every defect of a folder is reported, and refused where it would do harm."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from common.data.check import check, unreadable
from common.data.dataset import Dataset
from common.data.tables.ham10000 import METADATA_FILE
from common.errors import DataError

PART = "HAM10000_images_part_1"
FIRST, SECOND = "SYNTH_0000000", "SYNTH_0000001"


@pytest.fixture
def folder(synthetic_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(synthetic_folder, tmp_path / "data"))


def edit_row(folder: Path, image: str, /, **cells: str) -> None:
    table = folder / METADATA_FILE
    header, *rows = [line.split(",") for line in table.read_text().splitlines()]
    for row in rows:
        if row[header.index("image_id")] == image:
            for column, text in cells.items():
                row[header.index(column)] = text
    table.write_text("\n".join(",".join(row) for row in [header, *rows]))


def lesion_with_images(folder: Path) -> tuple[str, str]:
    """Two images of one lesion."""
    data = Dataset.open(folder)
    lesion = int(np.argmax(data.by_lesion.sizes))
    first, second = np.flatnonzero(data.by_lesion.index == lesion)[:2]
    return data.images[first].image_id, data.images[second].image_id


def no_table(folder: Path) -> None:
    (folder / METADATA_FILE).unlink()


def empty_table(folder: Path) -> None:
    (folder / METADATA_FILE).write_bytes(b"")


def table_without_rows(folder: Path) -> None:
    table = folder / METADATA_FILE
    table.write_text(table.read_text().splitlines()[0])


def binary_table(folder: Path) -> None:
    (folder / METADATA_FILE).write_bytes(bytes(range(256)) * 9)


def missing_column(folder: Path) -> None:
    table = folder / METADATA_FILE
    table.write_text(table.read_text().replace("image_id", "picture"))


def column_twice(folder: Path) -> None:
    table = folder / METADATA_FILE
    header, *rows = table.read_text().splitlines()
    table.write_text("\n".join([f"{header},dx", *(f"{row},nv" for row in rows)]))


def too_many_cells(folder: Path) -> None:
    edit_row(folder, FIRST, localization="back, upper")


def nul_in_a_cell(folder: Path) -> None:
    edit_row(folder, FIRST, lesion_id="SYNTH_LESION_000001\0")


def table_that_is_a_pipe(folder: Path) -> None:
    (folder / METADATA_FILE).unlink()
    os.mkfifo(folder / METADATA_FILE)


def zip_that_is_a_pipe(folder: Path) -> None:
    os.mkfifo(folder / f"{PART}.zip")


def spreadsheet_id(folder: Path) -> None:
    edit_row(folder, FIRST, lesion_id="1.23E+06")


def duplicate_id(folder: Path) -> None:
    table = folder / METADATA_FILE
    table.write_text(table.read_text() + table.read_text().splitlines()[1] + " again")


def two_diagnoses(folder: Path) -> None:
    image, other = lesion_with_images(folder)
    edit_row(folder, image, dx="df")
    edit_row(folder, other, dx="vasc")


def two_splits(folder: Path) -> None:
    table = folder / METADATA_FILE
    header, *rows = table.read_text().splitlines()
    table.write_text("\n".join([f"{header},split", *(f"{row},0" for row in rows)]))
    edit_row(folder, lesion_with_images(folder)[0], split="test")


def odd_split(folder: Path) -> None:
    table = folder / METADATA_FILE
    header, *rows = table.read_text().splitlines()
    table.write_text("\n".join([f"{header},split", *(f"{row},train" for row in rows)]))


def missing_image(folder: Path) -> None:
    (folder / PART / f"{FIRST}.jpg").unlink()


def truncated_zip(folder: Path) -> None:
    archive = Path(shutil.make_archive(str(folder / PART), "zip", folder / PART))
    archive.write_bytes(archive.read_bytes()[:-1000])


OPEN_REFUSES: dict[Callable[[Path], None], str] = {
    no_table: "has no HAM10000_metadata.csv",
    empty_table: "lacks the columns image_id, dx;",
    table_without_rows: "has no rows",
    binary_table: "is no table",
    missing_column: "lacks the columns image_id;",
    column_twice: "has the column dx twice",
    too_many_cells: "has more cells than there are columns",
    nul_in_a_cell: "has a NUL character",
    table_that_is_a_pipe: "no regular file",
    zip_that_is_a_pipe: f"1 x folder or archive that cannot be read: {PART}.zip",
    spreadsheet_id: "1 x id that a spreadsheet turned into a number: 1.23E+06",
    duplicate_id: "1 x duplicate image_id: SYNTH_",
    two_diagnoses: "1 x lesion with two diagnoses: SYNTH_LESION_",
    two_splits: "1 x lesion in two splits: SYNTH_LESION_",
    odd_split: "120 x split that is neither test nor a fold number",
    missing_image: f"1 x row without an image: {FIRST}",
    truncated_zip: f"1 x folder or archive that cannot be read: {PART}.zip",
}


@pytest.mark.parametrize("damage", OPEN_REFUSES)
def test_what_shows_without_decoding_is_reported_and_refused(
    folder: Path, damage: Callable[[Path], None]
) -> None:
    damage(folder)
    found = check(folder)
    assert not found.usable
    assert any(OPEN_REFUSES[damage] in str(defect) for defect in found.defects)
    with pytest.raises(DataError) as refusal:
        Dataset.open(folder)
    assert OPEN_REFUSES[damage] in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        ({"dx": "wart"}, f"1 x unknown diagnosis: {FIRST} wart (HAM10000_metadata.csv row 2)"),
        ({"dx": "NA"}, f"1 x row without a diagnosis: {FIRST} (HAM10000_metadata.csv row 2)"),
        ({"image_id": " "}, "1 x row without an image_id: HAM10000_metadata.csv row 2"),
        ({"dx": "malignant"}, f"1 x group of diagnoses beside single ones: {FIRST} malignant"),
    ],
)
def test_a_row_that_cannot_be_used_is_named_and_left_out(
    folder: Path, cells: dict[str, str], kind: str
) -> None:
    edit_row(folder, FIRST, **cells)
    found = check(folder)
    assert found.usable
    defect = next(each for each in found.defects if each.kind in kind)
    assert str(defect).startswith(kind)
    assert defect.severity == "warning"
    data = Dataset.open(folder)
    assert len(data) == found.total.images == 119
    assert FIRST not in {image.image_id for image in data.images}
    assert defect in data.warnings


def test_a_folder_that_is_not_there_is_reported_and_refused(tmp_path: Path) -> None:
    assert not check(tmp_path / "nowhere").usable
    with pytest.raises(DataError, match="nowhere cannot be listed"):
        Dataset.open(tmp_path / "nowhere")


def zero_bytes(image: Path) -> None:
    image.write_bytes(b"")


def truncated(image: Path) -> None:
    image.write_bytes(image.read_bytes()[:3000])


def garbage(image: Path) -> None:
    image.write_bytes(np.random.default_rng(0).bytes(5000))


def garbled_header(image: Path) -> None:
    data = bytearray(image.read_bytes())
    data[2:600] = np.random.default_rng(0).bytes(598)
    image.write_bytes(data)


def dangling_link(image: Path) -> None:
    image.unlink()
    image.symlink_to("nowhere.jpg")


def a_folder(image: Path) -> None:
    image.unlink()
    image.mkdir()


def a_pipe(image: Path) -> None:
    image.unlink()
    os.mkfifo(image)


def a_device(image: Path) -> None:
    image.unlink()
    image.symlink_to("/dev/zero")


@pytest.mark.parametrize(
    "damage",
    [zero_bytes, truncated, garbage, garbled_header, dangling_link, a_folder, a_pipe, a_device],
)
def test_images_that_cannot_be_decoded_are_reported(
    folder: Path, damage: Callable[[Path], None]
) -> None:
    for image_id in (FIRST, SECOND):
        damage(folder / PART / f"{image_id}.jpg")
    (defect,) = check(folder).defects
    assert (defect.kind, defect.severity) == ("image that cannot be used", "fatal")
    assert [offender.split()[0] for offender in defect.offenders] == [FIRST, SECOND]
    data = Dataset.open(folder)
    assert [name for name, _ in unreadable(data, np.arange(1, 30))] == [SECOND]


def test_an_error_without_words_is_a_defect_too(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Dataset.read

    def out_of_memory(data: Dataset, image_id: str) -> bytes:
        if image_id == FIRST:
            raise MemoryError
        return read(data, image_id)

    monkeypatch.setattr(Dataset, "read", out_of_memory)
    (defect,) = check(folder).defects
    assert (defect.severity, defect.offenders) == ("fatal", (f"{FIRST} (MemoryError)",))
    assert unreadable(Dataset.open(folder), np.arange(2)) == [(FIRST, "MemoryError")]


@pytest.mark.parametrize("name", ["\x1b[2J", "a\nfatal    1 x lie", "\u202egpj", "\udcff"])
def test_no_name_of_a_file_forges_a_line(folder: Path, name: str) -> None:
    (folder / PART / f"{name}.jpg").write_bytes(b"")
    (defect,) = check(folder).defects
    assert str(defect).isprintable()


def test_a_source_that_can_be_no_site_is_a_warning(folder: Path) -> None:
    edit_row(folder, FIRST, dataset="a|b")
    (defect,) = check(folder).defects
    assert str(defect) == "1 x source that is no name of a site: a|b"
    assert check(folder).usable


def test_copies_within_a_lesion_are_noted_where_no_byte_differs(folder: Path) -> None:
    image, other = lesion_with_images(folder)
    shutil.copy(folder / PART / f"{image}.jpg", folder / PART / f"{other}.jpg")
    (defect,) = check(folder).defects
    assert (defect.severity, defect.offenders) == ("note", (f"{image} = {other}",))


@pytest.mark.parametrize("same", [True, False])
def test_copies_in_two_lesions_are_fatal_where_diagnoses_differ(folder: Path, same: bool) -> None:
    data = Dataset.open(folder)
    image = data.images[0]
    other = next(
        row
        for row in data.images
        if row.lesion_id != image.lesion_id and (row.dx == image.dx) == same
    )
    with Pillow.open(folder / PART / f"{image.image_id}.jpg") as picture:
        picture.resize((300, 224)).save(folder / PART / f"{other.image_id}.jpg", quality=60)
    found = check(folder)
    assert found.usable == same
    names = [f"{each.image_id}{'' if same else f' {each.dx}'}" for each in (image, other)]
    assert [(defect.severity, defect.offenders) for defect in found.defects] == [
        ("warning" if same else "fatal", (" = ".join(names),))
    ]


def test_an_image_without_a_row_is_a_warning(folder: Path) -> None:
    shutil.copy(folder / PART / f"{FIRST}.jpg", folder / PART / "stray.jpg")
    found = check(folder)
    assert found.usable
    assert [str(defect) for defect in found.defects] == ["1 x image without a row: stray"]
    Dataset.open(folder)


def test_counts_add_up(folder: Path) -> None:
    edit_row(folder, FIRST, age="", sex="unknown", localization="unknown")
    found = check(folder)
    assert found.defects == ()
    assert found.total.images == 120
    assert min(found.total.no_age, found.total.no_sex, found.total.no_localization) >= 1
    for groups in (found.by_class, found.by_site):
        assert tuple(map(sum, zip(*groups.values(), strict=True))) == found.total


@pytest.mark.real_data
def test_the_real_data_has_one_picture_twice_in_two_lesions(real_data: Path) -> None:
    found = check(real_data)
    assert found.total == (10015, 7470, 57, 57, 234)
    assert found.by_site["rosendahl"].images == 2259
    copies, twins = found.defects
    assert (copies.severity, copies.offenders) == ("warning", ("ISIC_0025226 = ISIC_0030074",))
    assert (twins.severity, twins.offenders) == (
        "note",
        ("ISIC_0024366 = ISIC_0029861", "ISIC_0024777 = ISIC_0029938"),
    )
