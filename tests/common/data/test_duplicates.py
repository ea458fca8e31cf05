"""Copies of a picture are found and made one lesion; other pictures are not."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow

from common.data.dataset import Dataset
from common.data.duplicates import (
    MOST_DIFFERENT,
    hash_of,
    join,
    joined,
    near_duplicates,
    picture_hashes,
)
from common.data.image import Image
from common.errors import DataError
from common.features.extract import content_keys


def encoded(image: Pillow.Image, kind: str = "JPEG", **how: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **how)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def dataset(synthetic_folder: Path) -> Dataset:
    return Dataset.open(synthetic_folder)


def distance(one: np.ndarray, other: np.ndarray) -> int:
    return int(np.bitwise_count(one ^ other).sum())


@pytest.mark.parametrize(
    "copy",
    [
        lambda image: encoded(image, quality=50),
        lambda image: encoded(image, "WEBP", quality=60),
        lambda image: encoded(image, "PNG"),
        lambda image: encoded(image.resize((300, 224)), quality=85),
        lambda image: encoded(image.resize((100, 75)), quality=85),
        lambda image: encoded(image.convert("L"), quality=85),
    ],
)
def test_copies_are_near_and_other_lesions_far(dataset, copy):
    files = [dataset.read(image.image_id) for image in dataset.images[:40]]
    originals = [hash_of(data) for data in files]
    copies = [hash_of(copy(Pillow.open(io.BytesIO(data)).convert("RGB"))) for data in files]
    assert all(distance(*pair) <= MOST_DIFFERENT for pair in zip(originals, copies, strict=True))
    numbers = {tuple(members) for members in near_duplicates(np.stack(originals + copies))}
    assert numbers == {(i, i + len(files)) for i in range(len(files))}


def grouped_by_pairs(hashes: np.ndarray) -> set[tuple[int, ...]]:
    """Join groups pair by pair until nothing changes."""
    groups = [{i} for i in range(len(hashes))]
    for i in range(len(hashes)):
        for j in range(i):
            if distance(hashes[i], hashes[j]) <= MOST_DIFFERENT:
                one, other = (next(g for g in groups if k in g) for k in (i, j))
                if one is not other:
                    groups.remove(other)
                    one |= other
    return {tuple(sorted(group)) for group in groups if len(group) > 1}


@given(
    st.integers(0, 2**32),
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 70)), max_size=30),
)
def test_groups_are_those_that_pairs_link(seed, made):
    rng = np.random.default_rng(seed)
    centres = rng.integers(0, 2, (4, 256), dtype=np.uint8)
    bits = np.zeros((len(made), 256), dtype=np.uint8)
    for row, (centre, changed) in zip(bits, made, strict=True):
        row[:] = centres[centre]
        row[rng.permutation(256)[:changed]] ^= 1
    hashes = np.packbits(bits, axis=1).view(np.uint64).reshape(-1, 4)
    found = {tuple(members.tolist()) for members in near_duplicates(hashes)}
    assert found == grouped_by_pairs(hashes)


def test_blocks_of_rows_change_nothing(monkeypatch):
    bits = np.random.default_rng(0).integers(0, 2, (60, 256), dtype=np.uint8)
    bits[50:] = bits[:10]
    bits[50:, :20] ^= 1
    hashes = np.packbits(bits, axis=1).view(np.uint64)
    whole = [members.tolist() for members in near_duplicates(hashes)]
    monkeypatch.setattr("common.data.duplicates._AT_ONCE", 130)
    assert [members.tolist() for members in near_duplicates(hashes)] == whole
    assert whole == [[i, i + 50] for i in range(10)]
    assert near_duplicates(hashes[:0]) == []


ROW = Image("", "", "nv", "histo", 50.0, "male", "back")


@given(st.lists(st.integers(0, 5), min_size=1, max_size=12), st.data())
def test_whole_lesions_are_joined_and_others_stay(lesions, data):
    images = [
        replace(ROW, image_id=f"I{i}", lesion_id=f"L{lesion}", split=str(lesion))
        for i, lesion in enumerate(lesions)
    ]
    number = st.integers(0, len(images) - 1)
    pairs = data.draw(st.lists(st.lists(number, min_size=1, max_size=3, unique=True), max_size=4))
    after = join(images, [np.array(pair, dtype=np.int64) for pair in pairs])
    of = {image.lesion_id: image.lesion_id for image in images}
    for _ in images:  # as often as needed: each lesion takes the least name that it is linked to
        for pair in pairs:
            least = min(of[images[i].lesion_id] for i in pair)
            of |= {images[i].lesion_id: least for i in pair}
            of = {lesion: min(least, of[least]) for lesion, least in of.items()}
    expected = [
        replace(image, lesion_id=of[image.lesion_id], split=of[image.lesion_id][1:])
        for image in images
    ]
    assert list(after) == expected


def test_different_diagnoses_are_not_joined():
    images = [
        replace(ROW, image_id="I0", lesion_id="L0"),
        replace(ROW, image_id="I1", lesion_id="L1", dx="mel"),
    ]
    with pytest.raises(DataError, match=r"I0 \(nv\) and I1 \(mel\) are copies of one picture"):
        join(images, [np.array([0, 1])])


def test_a_dataset_is_joined_and_hashes_are_kept(dataset, tmp_path, monkeypatch):
    contents = content_keys(dataset)
    assert joined(dataset, tmp_path, contents).images == dataset.images
    first = picture_hashes(dataset, tmp_path, contents)
    np.testing.assert_array_equal(first[3], hash_of(dataset.read(dataset.images[3].image_id)))
    one = dataset.images[0]
    other = next(i for i in dataset.images if i.dx == one.dx and i.lesion_id != one.lesion_id)
    copied = replace(dataset, files={**dataset.files, other.image_id: dataset.files[one.image_id]})
    found = joined(copied, tmp_path, content_keys(copied))
    least = min(one.lesion_id, other.lesion_id)
    both = {image.image_id for image in found.images if image.lesion_id == least}
    assert {one.image_id, other.image_id} <= both
    assert len(set(found.lesions)) == len(set(dataset.lesions)) - 1
    monkeypatch.setattr("common.data.duplicates.hash_of", None)
    np.testing.assert_array_equal(picture_hashes(dataset, tmp_path, contents), first)


def test_an_image_without_a_hash_is_named(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(Dataset, "read", lambda self, image_id: b"no image")
    with pytest.raises(DataError, match=r"SYNTH_\d+ \(an image cannot be decoded \(no image"):
        picture_hashes(dataset, tmp_path, content_keys(dataset))
