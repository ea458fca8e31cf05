"""Ages, sexes, places and skin tones are read as they are meant, or named."""

from pathlib import Path

import pytest

from common.data.dataset import Dataset
from common.data.tables.ham10000 import write_metadata
from common.data.tables.scan import scan
from tests.common.data.tables.folders import numbered, write, write_pictures


def table(folder: Path, header: str, *rows: str) -> Path:
    lines = [f"ISIC_{i:07},nv,L{i},{row}\n" for i, row in enumerate(rows)]
    text = f"image_id,dx,lesion_id,{header}\n" + "".join(lines)
    return write(folder, {"table.csv": text}, {".": numbered(len(rows))})


def notes(folder: Path) -> str:
    return "\n".join(f"{each.severity} {each}" for each in scan(folder).defects)


def test_sexes_and_places_are_read_where_their_meaning_is_clear(tmp_path: Path) -> None:
    rows = ("F,head_neck", "weiblich,Head-Neck", "m,Rücken", "W,BACK", "x,left knee", ",")
    folder = table(tmp_path, "sex,localization", *rows)
    read = [(each.sex, each.localization) for each in Dataset.open(folder).images]
    assert read == [
        ("female", "head/neck"),
        ("female", "head/neck"),
        ("male", "back"),
        ("female", "back"),
        ("x", "left knee"),
        ("", ""),
    ]
    said = notes(folder)
    assert "note 7 x word read as another" in said
    assert "sex x (1 rows)" in said
    assert "localisation left knee (1 rows)" in said


def test_m_beside_h_is_a_woman_in_spanish_and_so_is_not_guessed(tmp_path: Path) -> None:
    folder = table(tmp_path, "sex", "H", "M")
    assert [each.sex for each in Dataset.open(folder).images] == ["h", "m"]
    assert "sex h (1 rows), sex m (1 rows)" in notes(folder)


def test_columns_and_rows_are_read_as_spreadsheets_and_databases_export_them(
    tmp_path: Path,
) -> None:
    """Names with blanks or hyphens, bars between cells, an index without a name, a row twice."""
    first, second = "0|ISIC_0000000|nv|L0|45 years\n", "1|ISIC_0000001|mel|L1|9 J.\n"
    text = "|Image ID |DX|lesion-id|Age\n" + first + second + first
    folder = write(tmp_path, {"export.csv": text}, {".": numbered(2)})
    read = [(each.dx, each.lesion_id, each.age) for each in Dataset.open(folder).images]
    assert read == [("nv", "L0", 45.0), ("mel", "L1", 9.0)]
    said = notes(folder)
    assert "table read loosely: export.csv (bars between cells)" in said
    assert "'Image ID ' as image_id in export.csv, 'lesion-id' as lesion_id in export.csv" in said
    assert "row that stands twice; it is read once: ISIC_0000000 (export.csv row 2, " in said
    assert "column that is not read" not in said


def test_months_that_are_called_so_are_read_as_years(tmp_path: Path) -> None:
    folder = table(tmp_path, "age_months", "540", "6", "", "old")
    assert [each.age for each in Dataset.open(folder).images] == [45.0, 0.5, None, None]
    assert "note 1 x column of ages in months, read as years" in notes(folder)


def test_ages_that_cannot_be_years_are_not_read(tmp_path: Path) -> None:
    folder = table(tmp_path, "age", "540", "96", "700")
    assert [each.age for each in Dataset.open(folder).images] == [None, None, None]
    assert "3 ages with a median of 540" in notes(folder)


@pytest.mark.parametrize(
    ("column", "cell", "tone"),
    [
        ("fitspatrick", "3.0", "fitzpatrick 3"),
        ("Fitzpatrick_Skin_Type", "IV", "fitzpatrick 4"),
        ("fitzpatrick", "type II", "fitzpatrick 2"),
        ("fitzpatrick", "0", ""),
        ("fitzpatrick", "VII", ""),
        ("fitzpatrick", "dark", ""),
        ("skin_tone_class", "0", "milk10k 0"),
        ("skin_tone_class", "6", ""),
    ],
)
def test_a_tone_is_read_on_the_scale_of_its_column_and_written_again(
    tmp_path: Path, column: str, cell: str, tone: str
) -> None:
    images = Dataset.open(table(tmp_path / "a", column, cell)).images
    assert images[0].skin_tone == tone
    assert ("skin tone that is none" in notes(tmp_path / "a")) == (not tone)
    again = tmp_path / "again"
    write_pictures(again, numbered(1))
    write_metadata(again, images)
    assert Dataset.open(again).images == images
