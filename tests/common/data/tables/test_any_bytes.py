"""Whatever lies in a folder, the readers answer or refuse in one line."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.data.dataset import Dataset
from common.data.tables.text import decoded
from common.errors import DataError
from tests.examples import examples

NAMES = ("HAM10000_metadata.csv", "metadata.csv", "ISIC_2019_Training_GroundTruth.csv", "data.toml")
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252")
HEADERS = (
    "lesion_id,image_id,dx,dx_type,age,sex,localization,dataset,split,patient_id",
    "image,MEL,NV,BCC,AKIEC,BKL,DF,VASC",
    "image,MEL,NV,BCC,AK,BKL,DF,VASC,SCC,UNK",
    "image_name,patient_id,target,benign_malignant",
    "img_id,diagnostic,patient_id,lesion_id,age",
    "isic_id,diagnosis,diagnosis_1,diagnosis_3,age_approx",
)
CELLS = st.sampled_from(
    (
        "",
        "a",
        "A.jpg",
        "nv",
        "DF ",
        "mel",
        "wart",
        "1.0",
        "0",
        "1",
        "85+",
        "65,0",
        "45 y",
        "NA",
        "1.2E+06",
    )
) | st.text(max_size=5)


def answer(folder: Path) -> Dataset | None:
    """Return the data, or None where they are refused."""
    try:
        return Dataset.open(folder)
    except DataError:
        return None


def opened(files: dict[str, bytes]) -> None:
    """Open a folder of these files; anything but an answer or a DataError fails the test."""
    with TemporaryDirectory() as folder:
        for name in ("a.jpg", "b.PNG"):
            Path(folder, name).write_bytes(b"no image")
        for name, data in files.items():
            Path(folder, name).write_bytes(data)
        data = answer(Path(folder))
        if data is None:
            return
        assert len(data.labels) == len(data) > 0
        for image in data.images:
            assert data.read(image.image_id) == b"no image"


@examples(100)
@given(st.dictionaries(st.sampled_from(NAMES), st.binary(max_size=300), min_size=1))
def test_any_bytes_are_read_or_refused(files: dict[str, bytes]) -> None:
    opened(files)


@examples(200)
@given(
    st.sampled_from(HEADERS),
    st.lists(st.lists(CELLS, max_size=12), max_size=6),
    st.sampled_from(",;\t"),
    st.sampled_from(("\n", "\r\n", "\r")),
    st.sampled_from(ENCODINGS),
)
def test_any_table_is_read_or_refused(
    header: str, rows: list[list[str]], delimiter: str, end: str, encoding: str
) -> None:
    lines = [header.replace(",", delimiter), *(delimiter.join(row) for row in rows)]
    opened({"metadata.csv": end.join(lines).encode(encoding, errors="replace")})


@examples(100)
@given(st.text(st.characters(codec="cp1252", exclude_characters="\r\0\ufeff"), min_size=1))
def test_latin_text_survives_every_encoding_with_a_header_before_it(text: str) -> None:
    whole = "image_id,dx,localization\n" + text
    for encoding in ENCODINGS[:-1]:
        assert decoded(whole.encode(encoding))[0] == whole


def test_windows_1252_is_read_where_it_is_no_utf_8() -> None:
    assert decoded("image_id;dx\n1;Rücken".encode("cp1252")) == (
        "image_id;dx\n1;Rücken",
        ("Windows-1252",),
    )


@pytest.mark.parametrize(
    "table", [b'image_id,dx\n"a,nv\n' + b"a,nv\n" * 500, b"image_id,dx\n" + b"a," * 200_000]
)
def test_an_open_quote_and_an_endless_line_are_refused(tmp_path: Path, table: bytes) -> None:
    (tmp_path / "HAM10000_metadata.csv").write_bytes(table)
    with pytest.raises(DataError, match="is no table"):
        Dataset.open(tmp_path)
