"""A partition gives every image to one site, lesions whole, and is written as it was planned."""

import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.data.dataset import Dataset
from common.data.image import Image
from common.data.splits import assign_splits
from common.errors import ConfigError, DataError
from common.task import HAM10000
from simulations.data.partition import Scheme, partition, write_sites

PART = "HAM10000_images_part_1"


@st.composite
def datasets(draw: st.DrawFn) -> Dataset:
    lesions = draw(st.lists(st.tuples(st.integers(0, 6), st.integers(1, 4)), min_size=1))
    images = [
        Image(
            f"{number:04}_{image}",
            f"L{number:04}",
            HAM10000.codes[label],
            "",
            None,
            "",
            "",
            source=draw(st.sampled_from("abc")),
        )
        for number, (label, size) in enumerate(lesions)
        for image in range(size)
    ]
    return Dataset(Path("made-up"), tuple(images), {})


@given(
    datasets(),
    st.sampled_from(["natural", "iid", "dirichlet", "quantity"]),
    st.floats(1e-3, 1e3),
    st.integers(0, 2**32),
    st.data(),
)
def test_every_image_is_at_one_site_and_every_lesion_whole(
    data: Dataset, scheme: Scheme, alpha: float, seed: int, choice: st.DataObject
) -> None:
    n_lesions = len(data.by_lesion.sizes)
    sites = None if scheme == "natural" else choice.draw(st.integers(1, n_lesions))
    parts = partition(data, scheme, sites, alpha, seed)
    assert sites in (None, len(parts))
    assert list(parts) == sorted(parts)
    assert all(len(indices) for indices in parts.values())
    np.testing.assert_array_equal(np.sort(np.concatenate([*parts.values()])), np.arange(len(data)))
    assert sum(len(set(data.lesions[indices])) for indices in parts.values()) == n_lesions
    again = partition(data, scheme, sites, alpha, seed)
    assert all(np.array_equal(parts[name], again[name]) for name in parts)


def test_a_lesion_goes_to_the_source_of_most_of_its_images() -> None:
    sources = {"L1": "abb", "L2": "ba", "L3": "c"}
    data = Dataset(
        Path("made-up"),
        tuple(
            Image(f"{lesion}_{i}", lesion, "nv", "", None, "", "", source)
            for lesion, letters in sources.items()
            for i, source in enumerate(letters)
        ),
        {},
    )
    parts = partition(data, "natural", None, 1.0, 0)
    assert {name: indices.tolist() for name, indices in parts.items()} == {
        "a": [3, 4],
        "b": [0, 1, 2],
        "c": [5],
    }


def test_alpha_sets_the_skew(synthetic_folder: Path) -> None:
    data = Dataset.open(synthetic_folder)

    def largest_share(scheme: Scheme, alpha: float) -> float:
        parts = partition(data, scheme, 4, alpha, seed=0)
        return max(len(indices) for indices in parts.values()) / len(data)

    assert largest_share("quantity", 0.2) > 0.5
    assert largest_share("quantity", 1e4) < 0.35
    even = partition(data, "iid", 4, 1.0, seed=0).values()
    lesions = [len(set(data.lesions[indices])) for indices in even]
    assert max(lesions) - min(lesions) <= 1
    skewed = partition(data, "dirichlet", 4, 0.1, seed=0).values()
    mixes = [np.bincount(data.labels[indices], minlength=7) for indices in skewed]
    assert any((mix == 0).any() for mix in mixes)


def test_many_sites_sort_by_number(synthetic_folder: Path) -> None:
    # 101 sites need 101 lesions: here each image is one.
    data = Dataset.open(synthetic_folder)
    data = replace(
        data, images=tuple(replace(image, lesion_id=image.image_id) for image in data.images)
    )
    names = list(partition(data, "dirichlet", 101, 0.01, seed=0))
    assert (names[0], names[-1], len(names)) == ("site_000", "site_100", 101)


def test_impossible_requests_say_what_is_possible(synthetic_folder: Path) -> None:
    data = Dataset.open(synthetic_folder)
    lesions = len(data.by_lesion.sizes)
    with pytest.raises(DataError, match=f"ask for at most {lesions}"):
        partition(data, "iid", lesions + 1, 1.0, 0)
    with pytest.raises(DataError, match=r"has 4 natural sites \(synth_a, .*\), not 3"):
        partition(data, "natural", 3, 1.0, 0)
    for source in ("", "../elsewhere", "a|b", "<b>", "a\nb", "a\x1b[2J", "a\u202eb"):
        odd = replace(data, images=tuple(replace(i, source=source) for i in data.images))
        with pytest.raises(DataError, match="plain source name in every row"):
            partition(odd, "natural", None, 1.0, 0)
    with pytest.raises(ConfigError, match="number of sites is None"):
        partition(data, "iid", None, 1.0, 0)
    with pytest.raises(ConfigError, match="alpha is 0"):
        partition(data, "dirichlet", 2, 0, 0)
    with pytest.raises(ConfigError, match="alpha is 1e\\+308"):
        partition(data, "dirichlet", 2, 1e308, 0)


@pytest.mark.parametrize("link", [True, False])
def test_written_sites_add_up_to_the_pooled_data(
    synthetic_folder: Path, tmp_path: Path, link: bool
) -> None:
    data = Dataset.open(synthetic_folder)
    data = data.with_splits(assign_splits(data, 0.2, 3, seed=0))
    parts = partition(data, "dirichlet", 3, 0.5, seed=0)
    write_sites(data, parts, tmp_path / "sites", link=link)
    sites = [Dataset.open(tmp_path / "sites" / name) for name in parts]
    images = [image for site in sites for image in site.images]
    assert tuple(sorted(images, key=lambda image: image.image_id)) == data.images
    for site, (name, indices) in zip(sites, parts.items(), strict=True):
        assert site.synthetic
        assert site.images == data.select(indices).images
        assert site.read(site.images[0].image_id) == data.read(site.images[0].image_id)
        files = [*(tmp_path / "sites" / name / PART).iterdir()]
        assert all(file.is_symlink() == link for file in files)
        masks = [*(tmp_path / "sites" / name).glob("*segmentations*/*.png")]
        assert len(masks) == (0 if link else len(site))


def test_links_from_an_archive_are_copies(synthetic_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(synthetic_folder, tmp_path / "data"))
    with zipfile.ZipFile(folder / f"{PART}.zip", "w") as archive:
        for file in (folder / PART).iterdir():
            archive.write(file, file.name)
    shutil.rmtree(folder / PART)
    data = Dataset.open(folder)
    write_sites(data, partition(data, "iid", 2, 1.0, 0), tmp_path / "sites", link=True)
    site = Dataset.open(tmp_path / "sites" / "site_00")
    for image in site.images:
        assert site.read(image.image_id) == data.read(image.image_id)


def test_nothing_is_written_over(synthetic_folder: Path, tmp_path: Path) -> None:
    data = Dataset.open(synthetic_folder)
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(DataError, match="is not an empty folder; name a new one"):
        write_sites(data, partition(data, "iid", 2, 1.0, 0), tmp_path, link=True)
    assert [path.name for path in tmp_path.iterdir()] == ["note.txt"]


@pytest.mark.real_data
def test_natural_sites_keep_the_two_source_lesions_whole(real_data: Path, tmp_path: Path) -> None:
    data = Dataset.open(real_data)
    pairs = set(zip(data.lesions, data.sources, strict=True))
    assert len(pairs) - len(data.by_lesion.sizes) == 9
    parts = partition(data, "natural", None, 1.0, 0)
    assert list(parts) == ["rosendahl", "vidir_modern", "vidir_molemax", "vienna_dias"]
    assert sum(len(set(data.lesions[indices])) for indices in parts.values()) == 7470
    write_sites(data, parts, tmp_path / "sites", link=True)
    assert sum(len(Dataset.open(tmp_path / "sites" / name)) for name in parts) == 10015
