"""A data set of one's own is described by data.toml, and a wrong description is refused."""

from pathlib import Path

import pytest

from common.data.dataset import Dataset
from common.errors import DataError
from tests.common.data.tables import folders
from tests.documents import ROOT, blocks

TABLE = (
    "Bild;Diagnose;Läsion;Patient;Klinik;Alter\n"
    "17;Nävus;L1;P1;Nord;45,5\n"
    "18;MELANOM ;L2;P1;Nord;60\n"
    "19;Aktinische Keratose;L3;P2;Süd;70\n"
    "20;Warze;L4;P3;Süd;30\n"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "bilder").mkdir()
    names = [f"foto_{number}_derm.png" for number in range(17, 21)]
    folders.write(tmp_path, {"befunde.csv": TABLE}, {"bilder": names})
    (tmp_path / "befunde.csv").write_bytes(TABLE.encode("cp1252"))
    (tmp_path / "data.toml").write_text(example())
    return tmp_path


def example() -> str:
    """Return the file that docs/data.md shows."""
    return next(block for block in blocks(ROOT / "docs" / "data.md", "toml") if "table" in block)


def test_the_example_of_the_page_reads_its_table(folder: Path) -> None:
    data = Dataset.open(folder)
    rows = [(i.image_id, i.dx, i.lesion_id, i.patient_id, i.source, i.age) for i in data.images]
    assert rows == [
        ("17", "nv", "L1", "P1", "Nord", 45.5),
        ("18", "mel", "L2", "P1", "Nord", 60.0),
        ("19", "keratosis", "L3", "P2", "Süd", 70.0),
    ]
    assert data.task.codes == ("mel", "nv", "keratosis")
    assert data.task.name("keratosis") == "actinic keratosis"
    assert data.task.malignant == ("mel", "keratosis")
    assert ("Aktinische Keratose", "keratosis") in data.task.mapping
    (warning,) = data.warnings
    assert str(warning) == "1 x unknown diagnosis: 20 Warze (befunde.csv row 5)"
    assert data.read("17") == (folder / "bilder" / "foto_17_derm.png").read_bytes()


def test_folders_of_classes_may_have_names_of_their_own(tmp_path: Path) -> None:
    pictures = {"Melanome": ["1.jpg", "2.jpg"], "Muttermale": ["3.jpg"]}
    folders.write(tmp_path, {}, pictures)
    (tmp_path / "data.toml").write_text(
        'folders = true\n[classes.mel]\nfrom = ["Melanome"]\n[classes.nv]\nfrom = ["muttermale"]\n'
    )
    assert [image.dx for image in Dataset.open(tmp_path).images] == ["mel", "mel", "nv"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("[columns]", "[column]"), "unknown key 'column' .* did you mean 'columns'"),
        (
            ("malignant =", "maligne ="),
            r"unknown key 'classes\..*maligne' .* did you mean 'malignant'",
        ),
        (("[classes.mel]", "[classes.Mel]"), "a code has small letters"),
        (('image = "Bild"', ""), "lacks image; add it"),
        (('image = "Bild"', 'image = "Foto"'), "lacks the columns foto"),
        (("malignant = true", 'malignant = "yes"'), "should be a valid boolean"),
        (('"befunde.csv"', '"../befunde.csv"'), "name a file that lies beside it"),
        (('"befunde.csv"', '"none.csv"'), r"none\.csv is no table"),
        (("{image}", "image"), "write {image} once"),
        (('"Nävus"', '"Nävus", "Melanom"'), "'Melanom' stands for mel and for nv"),
        (("[columns]", "[columns"), "is no TOML"),
    ],
)
def test_a_wrong_description_is_refused_in_one_line(
    folder: Path, change: tuple[str, str], message: str
) -> None:
    text = (folder / "data.toml").read_text()
    assert change[0] in text
    (folder / "data.toml").write_text(text.replace(*change))
    with pytest.raises(DataError, match=message) as refusal:
        Dataset.open(folder)
    assert "\n" not in str(refusal.value)
