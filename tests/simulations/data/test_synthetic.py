"""Synthetic data is laid out like HAM10000, learnable by construction and the same every time."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.data.check import check
from common.data.dataset import MASK_FOLDER, Dataset
from common.errors import ConfigError, DataError
from common.task import HAM10000
from simulations.data.synthetic import write_synthetic


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    for name, seed in (("one", 0), ("same", 0), ("other", 1)):
        write_synthetic(tmp_path / name, images=40, seed=seed)
    one, same, other = (contents(tmp_path / name) for name in ("one", "same", "other"))
    assert one == same
    assert one.keys() == other.keys()
    assert all(one[name] != other[name] for name in one)


def test_the_folder_is_sound_and_marked(synthetic_folder: Path) -> None:
    found = check(synthetic_folder)
    assert found.defects == ()
    assert found.total.images == 120
    assert tuple(found.by_class) == HAM10000.codes
    assert min(count.lesions for count in found.by_class.values()) >= 5
    assert max(found.by_class, key=lambda dx: found.by_class[dx].images) == "nv"
    assert set(found.by_site) <= {"synth_a", "synth_b", "synth_c", "synth_d"}
    data = Dataset.open(synthetic_folder)
    assert data.synthetic
    assert data.by_lesion.sizes.max() > 1
    assert "describe no patients" in (synthetic_folder / "SYNTHETIC.txt").read_text()


def test_images_and_masks_have_one_size_and_a_lesion(synthetic_folder: Path) -> None:
    for image in Dataset.open(synthetic_folder).images:
        file = next(synthetic_folder.glob(f"HAM10000_images*/{image.image_id}.jpg"))
        mask_file = synthetic_folder / MASK_FOLDER / f"{image.image_id}_segmentation.png"
        with Image.open(file) as pixels, Image.open(mask_file) as mask:
            assert (pixels.size, pixels.mode) == ((300, 225), "RGB")
            assert (mask.size, mask.mode) == ((300, 225), "1")
            assert 0.002 < np.asarray(mask).mean() < 0.95


def test_impossible_requests_are_refused(synthetic_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="39 images"):
        write_synthetic(tmp_path / "new", images=39)
    with pytest.raises(DataError, match="is not an empty folder"):
        write_synthetic(synthetic_folder, images=40)
