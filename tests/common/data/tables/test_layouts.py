"""Each published layout is recognised and read, and what cannot be used is named."""

import shutil
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from common.data.check import check
from common.data.dataset import Dataset
from common.data.image import Scan
from common.data.tables.pad_ufes import PAD_UFES
from common.data.tables.scan import scan
from common.errors import DataError
from common.task import BINARY, HAM10000, ISIC2019, Task
from simulations.data.isic2019 import INPUT_FOLDER, write_isic2019
from tests.common.data.tables import folders

Write = Callable[[Path], Path]


def kinds(report: Scan) -> dict[str, int]:
    """How many offenders each kind of fatal defect or warning has."""
    return {d.kind: len(d.offenders) for d in report.defects if d.severity != "note"}


UNKNOWN_LESION = "image whose lesion and patient are unknown: it is a lesion of its own"
OF_PATIENT = "image whose lesion is unknown: patient and diagnosis stand for it"


@pytest.mark.parametrize(
    ("write", "layout", "task", "diagnoses", "warnings"),
    [
        (folders.ham10000, "HAM10000 (HAM10000_metadata.csv)", HAM10000, "", {}),
        (folders.isic2018, "ISIC 2018 Task 3 (", HAM10000, "", {}),
        (
            folders.isic2019,
            "ISIC 2019 (ISIC_2019_Training_GroundTruth.csv, ISIC_2019_Training_Metadata.csv)",
            ISIC2019,
            "mel nv bcc akiec bkl df vasc scc",
            {
                "row in which no diagnosis is 1": 1,
                "row in which several diagnoses are 1": 1,
                "unknown diagnosis": 1,
                UNKNOWN_LESION: 4,
            },
        ),
        (
            folders.isic2020,
            "ISIC 2020 (train.csv)",
            BINARY,
            "benign benign malignant malignant",
            {"row whose columns contradict each other": 1, OF_PATIENT: 4},
        ),
        (
            folders.archive_new,
            "ISIC archive (metadata.csv)",
            ISIC2019,
            "mel nv scc",
            {
                "unknown diagnosis": 1,
                "group of diagnoses beside single ones": 1,
                OF_PATIENT: 1,
            },
        ),
        (
            folders.archive_old,
            "ISIC archive (metadata.csv)",
            HAM10000,
            "nv mel bkl",
            {UNKNOWN_LESION: 3},
        ),
        (
            folders.pad_ufes,
            "PAD-UFES-20 (metadata.csv)",
            PAD_UFES,
            "akiec bcc mel nv scc bkl",
            {},
        ),
        (
            folders.class_folders,
            "one folder per class",
            HAM10000,
            "",
            {"unknown diagnosis": 1, UNKNOWN_LESION: 14},
        ),
    ],
)
def test_a_layout_is_recognised_and_read(
    tmp_path: Path,
    write: Write,
    layout: str,
    task: Task,
    diagnoses: str,
    warnings: dict[str, int],
) -> None:
    report = scan(write(tmp_path / "data"))
    assert report.layout.startswith(layout)
    assert report.task == task
    assert kinds(report) == warnings
    data = Dataset.open(tmp_path / "data")
    expected = diagnoses.split() or [code for code in folders.CODES for _ in range(2)]
    assert Counter(image.dx for image in data.images) == Counter(expected)
    assert data.task == task
    assert [task.codes[label] for label in data.labels] == [image.dx for image in data.images]
    for image in data.images:
        assert data.read(image.image_id)


def test_isic_2018_says_which_images_are_of_one_lesion(tmp_path: Path) -> None:
    with_them = Dataset.open(folders.isic2018(tmp_path / "a"))
    assert with_them.by_lesion.sizes.tolist() == [2] * 7
    assert with_them.images[0].dx_type == "histopathology"
    assert with_them.unknown_lesions == ""
    without = Dataset.open(folders.isic2018(tmp_path / "b", groupings=False))
    assert without.by_lesion.sizes.tolist() == [1] * 14
    assert "the lesion is unknown in 14 of 14 images" in without.unknown_lesions


def test_tables_in_folders_of_their_own_are_found(tmp_path: Path) -> None:
    folder = folders.isic2018(tmp_path / "data")
    (folder / "ISIC2018_Task3_Training_GroundTruth").mkdir()
    table = folder / "ISIC2018_Task3_Training_GroundTruth.csv"
    table.rename(folder / "ISIC2018_Task3_Training_GroundTruth" / table.name)
    assert len(Dataset.open(folder)) == 14


def test_images_without_their_suffix_are_found(tmp_path: Path) -> None:
    folder = folders.isic2019(tmp_path / "data")
    for file in folder.glob("*/*_downsampled.jpg"):
        file.rename(file.with_name(file.name.replace("_downsampled", "")))
    assert len(Dataset.open(folder)) == 8
    assert "image without a row" not in kinds(scan(folder))


def test_a_patient_with_two_diagnoses_has_two_lesions(tmp_path: Path) -> None:
    data = Dataset.open(folders.isic2020(tmp_path / "data"))
    first, second, third, _ = data.images
    assert first.lesion_id == second.lesion_id != third.lesion_id
    assert {image.patient_id for image in (first, second, third)} == {"IP_1"}
    assert "patient and the diagnosis stand for it in 4 images" in data.unknown_lesions


def test_metadata_is_read_as_the_archive_has_it(tmp_path: Path) -> None:
    data = Dataset.open(folders.archive_new(tmp_path / "data"))
    melanoma = data.images[0]
    assert (melanoma.age, melanoma.sex, melanoma.localization) == (85.0, "male", "head/neck")
    assert (melanoma.source, melanoma.lesion_id) == ("Hospital, A", "IL_1")
    (loose,) = [d for d in scan(data.folder).defects if d.kind == "age read as a number"]
    assert loose.offenders == ("85+ (ISIC_0000000, metadata.csv row 2)",)


def test_pictures_of_formats_that_are_not_read_are_named(tmp_path: Path) -> None:
    table = "image_id,dx,lesion_id\nphone,nv,L0\nboth,mel,L1\n"
    folder = folders.write(tmp_path, {"table.csv": table}, {".": ["both.png"]})
    for name in ("phone.HEIC", "both.heic"):
        (folder / name).write_bytes(b"\0\0\0\x18ftypheic")
    report = check(folder)
    (broken,) = [defect for defect in report.defects if defect.severity == "fatal"]
    assert [each.partition(" ")[0] for each in broken.offenders] == ["phone"]
    assert "use JPEG, PNG" in broken.offenders[0]


def test_folders_of_classes_may_be_divided_or_zipped_or_number_their_images(
    tmp_path: Path,
) -> None:
    divided = tmp_path / "divided"
    for part in ("train", "test"):
        folders.write(divided / part, {}, {c: [f"{part}{c}.png"] for c in ("melanoma", "nevus")})
    assert Counter(i.dx for i in Dataset.open(divided).images) == {"mel": 2, "nv": 2}
    zipped = tmp_path / "zipped"
    zipped.mkdir()
    with zipfile.ZipFile(zipped / "pictures.zip", "w") as archive:
        for file in divided.rglob("*.png"):
            archive.write(file, file.relative_to(divided))
    assert Dataset.open(zipped).images == Dataset.open(divided).images
    folders.write(tmp_path / "numbers", {}, {c: ["1.jpg", "2.jpg"] for c in ("mel", "nv")})
    names = [image.image_id for image in Dataset.open(tmp_path / "numbers").images]
    assert names == ["mel_1", "mel_2", "nv_1", "nv_2"]


def test_two_layouts_in_one_folder_are_said(tmp_path: Path) -> None:
    folder = folders.ham10000(tmp_path / "data")
    shutil.copytree(folders.isic2018(tmp_path / "other"), folder, dirs_exist_ok=True)
    report = scan(folder)
    assert report.layout.startswith("HAM10000")
    assert "1 x layout that fits too and is not read: ISIC 2018 Task 3" in map(str, report.defects)


def test_two_tables_of_one_layout_are_refused(tmp_path: Path) -> None:
    folder = folders.pad_ufes(tmp_path / "data")
    shutil.copy(folder / "metadata.csv", folder / "copy.csv")
    with pytest.raises(DataError, match=r"copy\.csv and .*metadata\.csv both hold images"):
        Dataset.open(folder)


def test_a_folder_of_nothing_known_says_what_is_there(tmp_path: Path) -> None:
    folders.write(tmp_path, {"list.csv": "Bild;Diagnose\n1;nv\n"}, {"bilder": ["1.jpg"]})
    with pytest.raises(DataError, match=r"list\.csv has the columns bild, diagnose; describe"):
        Dataset.open(tmp_path)
    (tmp_path / "list.csv").write_bytes(b"PK\x03\x04" + b"\0" * 100)
    with pytest.raises(DataError, match=r"list\.csv is an Excel workbook; save it as CSV"):
        Dataset.open(tmp_path)


def test_what_is_written_as_isic_2019_is_read_back(tmp_path: Path) -> None:
    original = Dataset.open(folders.ham10000(tmp_path / "ham"))
    (tmp_path / "isic").mkdir()
    write_isic2019(tmp_path / "isic", original.images)
    shutil.copytree(original.folder / "HAM10000_images_part_1", tmp_path / "isic" / INPUT_FOLDER)
    copy = Dataset.open(tmp_path / "isic")
    assert copy.task == ISIC2019
    for image, again in zip(original.images, copy.images, strict=True):
        for name in ("image_id", "lesion_id", "dx", "age", "sex", "localization"):
            assert getattr(again, name) == getattr(image, name)
