"""From paths to answers: what is found, in which order, and how much of it is in memory."""

import gc
import io
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow

from client.predict.images import BATCH, answered, answers, expand
from client.predict.picture import NOT_AN_IMAGE, SIDE, small_picture
from client.predict.shown import ImageFile
from common.answers.answer import Answer, Unreadable
from common.data.pictures import KNOWN_FORMATS, is_image
from common.errors import DataError
from tests.client.predict.fakes import Model, image
from tests.exif import ORIENTATION, STORED


@pytest.fixture
def folder(tmp_path):
    """Write images at two depths, and what is none."""
    for name in ("b.JPG", "a.png", "inner/c.tiff", "inner/d.webp", "inner/deep/e.jpeg"):
        file = tmp_path / "images" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(image())
    for name in ("notes.txt", "._b.jpg", "inner/mask.csv"):
        (tmp_path / "images" / name).write_bytes(b"x")
    return tmp_path / "images"


def names(found, folder):
    return [str(path.relative_to(folder)) for path in found]


def test_a_folder_gives_its_images_at_any_depth_in_order(folder):
    expected = ["a.png", "b.JPG", "inner/c.tiff", "inner/d.webp", "inner/deep/e.jpeg"]
    assert names(expand([str(folder)], ()), folder) == expected
    os.symlink(folder, folder / "inner" / "again")
    assert names(expand([str(folder)], ()), folder) == expected


def test_no_picture_of_a_folder_is_lost(tmp_path):
    """One of a format that is not read is refused by name; an archive's has no ending."""
    contents = {"IM0001": image(), "1.2.840.7": image(), "phone.HEIC": b"\0\0\0\x18ftypheic"}
    contents |= {"LICENSE": b"MIT", "2.1": b"Version", "list.csv": image()}
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
    found = expand([str(tmp_path)], ())
    assert names(found, tmp_path) == ["1.2.840.7", "IM0001", "phone.HEIC"]
    *_, phone = answers(Model(), found, evidence=False)
    assert "no JPEG, PNG" in phone.shown.answer.error


def test_paths_keep_their_order_and_a_list_stands_where_it_is_named(folder):
    lines = [f"{folder}/inner/c.tiff\r\n".encode(), b"\n", f"{folder}/inner/deep".encode()]
    found = expand([str(folder / "b.JPG"), "-", str(folder / "a.png")], lines)
    assert names(found, folder) == ["b.JPG", "inner/c.tiff", "inner/deep/e.jpeg", "a.png"]


def test_a_file_that_is_named_is_taken_whatever_its_ending(folder):
    assert expand([str(folder / "notes.txt")], ()) == [folder / "notes.txt"]


def test_a_name_that_is_no_text_is_a_name(tmp_path):
    found = expand(["-"], [os.fsencode(tmp_path) + b"/\xff.jpg\n"])
    assert os.fsencode(found[0]).endswith(b"\xff.jpg")


def test_a_folder_without_images_is_one_line_and_the_others_stand(folder, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    found = expand([str(empty), str(folder / "a.png")], ())
    assert found == [
        Unreadable(str(empty), f"a folder without {KNOWN_FORMATS}; name another"),
        folder / "a.png",
    ]
    with pytest.raises(DataError, match=f"^{empty}: a folder without JPEG"):
        expand([str(empty)], ())
    with pytest.raises(DataError, match="the list of paths is empty"):
        expand(["-"], ())


def test_what_cannot_be_read_has_its_place_among_the_answers(folder, tmp_path):
    (folder / "cut.jpg").write_bytes(image()[:300])
    (folder / "empty.jpg").touch()
    os.mkfifo(tmp_path / "pipe.jpg")
    paths = [folder / "a.png", folder / "no.jpg", folder / "cut.jpg", folder / "notes.txt"]
    paths += [folder / "empty.jpg", tmp_path / "pipe.jpg", folder / "b.JPG"]
    model = Model()
    shown = [each.shown.answer for each in answers(model, paths, evidence=False)]
    assert [each.image for each in shown] == list(map(str, paths))
    assert [type(each) for each in shown] == [Answer, *[Unreadable] * 5, Answer]
    assert [each.error for each in shown[1:6]] == [
        "cannot be read (No such file or directory)",
        "an image cannot be decoded (truncated); use JPEG or PNG",
        NOT_AN_IMAGE,
        "an empty file; copy it again",
        "cannot be read (no regular file)",
    ]
    assert model.asked == [[str(folder / name) for name in ("a.png", "cut.jpg", "b.JPG")]]


def test_few_images_are_in_memory_at_once(tmp_path):
    """As many live as a batch has, however many there are."""
    file = tmp_path / "a.jpg"
    file.write_bytes(image())
    most = 0

    def alive():
        return sum(type(each) is ImageFile for each in gc.get_objects())

    for number, _ in enumerate(answers(Model(), [file] * (4 * BATCH), evidence=False)):
        if number % (BATCH // 2) == 0:  # to look takes long
            most = max(most, alive())
    assert BATCH // 2 < most <= 2 * BATCH + 2


def test_answers_come_before_the_last_image_is_read(tmp_path):
    file = tmp_path / "a.jpg"
    file.write_bytes(image())
    read = []

    def paths():
        for number in range(10 * BATCH):
            read.append(number)
            yield file

    next(answers(Model(), paths(), evidence=False))
    assert len(read) <= BATCH + 1


def test_maps_are_made_where_they_are_shown():
    files = [ImageFile("a.jpg", image(400))]
    with_map, without = (
        next(answered(Model(), files, evidence=evidence)).shown.evidence
        for evidence in (True, False)
    )
    assert with_map.png
    assert without is None


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_upright_small_and_holds_pixels_only(orientation):
    """Its corner is white where the camera's top was."""
    upright = Pillow.new("RGB", (800, 600), "black")
    upright.paste("white", (0, 0, 100, 100))
    stored = upright.transpose(STORED[orientation]) if orientation > 1 else upright
    exif, out = Pillow.Exif(), io.BytesIO()
    exif[ORIENTATION], exif[0x010E] = orientation, "Jane Doe"
    stored.save(out, "JPEG", exif=exif)
    assert b"Jane Doe" in out.getvalue()
    picture, *size = small_picture(out.getvalue())
    assert b"Jane Doe" not in picture
    with Pillow.open(io.BytesIO(picture)) as shown:
        assert shown.size == tuple(size) == (SIDE, SIDE * 3 // 4)
        assert min(shown.getpixel((10, 10))) > 200
        assert max(shown.getpixel((SIDE - 10, 10))) < 50
        assert not shown.getexif()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "BMP", "WEBP"])
def test_each_kind_of_image_has_a_picture_and_others_have_none(kind):
    data = image(kind=kind)
    assert is_image(data)
    assert is_image(small_picture(data).jpeg)
    assert small_picture(data[:200]) is None
    other = io.BytesIO()
    Pillow.new("RGB", (10, 10)).save(other, "GIF")
    assert not is_image(other.getvalue())
    assert small_picture(other.getvalue()) is None


@given(st.binary(max_size=400), st.integers(0, 400))
def test_damaged_bytes_have_a_picture_or_none(damage, place):
    data = image(80, 70, "PNG")
    changed = data[:place] + damage + data[place + len(damage) :]
    picture = small_picture(changed)
    assert picture is None or is_image(picture.jpeg)


def test_a_bomb_has_no_picture():
    data = bytearray(image(40, 30, "PNG"))
    data[16:24] = (60_000).to_bytes(4) + (60_000).to_bytes(4)
    assert small_picture(bytes(data)) is None
