"""What a table or a user says of patients: matched to images, or named; nothing is guessed."""

from pathlib import Path

import pytest

from common.data.metadata import BLOCKS, UNKNOWN, About, encode
from common.data.patients import checked, read_patients, stated
from common.errors import ConfigError, DataError

A, B, C = Path("p1/a.jpg"), Path("p2/a.jpg"), Path("p2/c.jpg")


def table(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "t.csv"
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("image_id,age,sex,localization\np1/a.jpg,45,female,back\np2/a,,Male,", "utf-8"),
        ("Image_ID;Age;Sex;Localization\r\nP1\\A.PNG;45,0;FEMALE;Back\r\np2/a;;male;", "cp1252"),
        ("isic_id\tage_approx\tgender\tregion\np1/a\t45\tfemale\tBACK\na\tNA\tmale\t?", "utf-16"),
    ],
)  # fmt: skip
def test_tables_as_programs_save_them_say_the_same(tmp_path, text, encoding, caplog):
    found = read_patients(table(tmp_path, text, encoding), [A, B])
    assert found == {A: About(45.0, "female", "back"), B: About(None, "male", "")}
    assert caplog.text == ""


def test_the_row_that_names_the_folder_goes_before_one_that_does_not(tmp_path):
    text = "file,age\na,1\np1/a,2\n"
    assert {p: about.age for p, about in read_patients(table(tmp_path, text), [A, B]).items()} == {
        A: 2.0,
        B: 1.0,
    }


def test_what_cannot_be_used_is_named_with_its_row(tmp_path, caplog):
    text = "image_id,age,sex,localization\np1/a,540,divers,leg\nzebra,1,male\n,3,male\nApe\n"
    # An answer can name a word that is in no list; the model takes none of it.
    odd = About(None, "divers", "leg")
    assert read_patients(table(tmp_path, text), [A, C]) == {A: odd}
    assert (encode(tuple(BLOCKS), [odd]) == encode(tuple(BLOCKS), [UNKNOWN])).all()
    for said in (
        "540 (t.csv row 2); give years from 0 to 120",
        "divers (t.csv row 2); write female or male",
        "leg (t.csv row 2); write one of abdomen, ",
        "p2/c.jpg; answered without metadata",
        "zebra (t.csv row 3), Ape (t.csv row 5); not used",
        "t.csv row 4; not used; fill it in",
    ):
        assert said in caplog.text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("image_id,dx\na,nv\n", "has none of the columns age, sex, localization; add one"),
        ("age,sex\n1,male\n", "has no column of images; name one image_id"),
        ("image_id,age\nq,1\n", "no row names one of these images, such as p1/a.jpg; t.csv row 2"),
        ("image_id,age\na,1\n", r"t.csv row 2 \(p1/a.jpg and p2/a.jpg\); write their folders too"),
        ("image_id,age\np1/a,1\np1/a,2\n", r"p1/a.jpg \(t.csv row 2, t.csv row 3\); keep the row"),
        ("image_id,age\np1/a,1,2\n", "row that has more cells than there are columns"),
    ],
)
def test_a_table_that_leaves_a_doubt_is_refused_in_one_line(tmp_path, text, reason):
    with pytest.raises(DataError, match=reason):
        read_patients(table(tmp_path, text), [A, B])


def test_words_are_read_as_in_tables_and_others_refused():
    assert stated("45,5", " Female", "Head/Neck") == About(45.5, "female", "head/neck")
    assert stated("unknown", "unknown", "") == checked(About(float("nan"))) == UNKNOWN
    for said, reason in (
        ({"age": "121"}, "the age is 121; give years from 0 to 120"),
        ({"age": "-1"}, "the age is '-1'"),
        ({"age": "old"}, "the age is 'old'"),
        ({"sex": "femal"}, "write one of female, male; did you mean 'female'?"),
        ({"localization": "bakc"}, "the place is 'bakc'; write one of abdomen"),
    ):
        with pytest.raises(ConfigError) as refused:
            stated(**said)
        assert reason in str(refused.value)
