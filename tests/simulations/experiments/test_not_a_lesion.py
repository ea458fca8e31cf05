"""What is measured: lesions apart by lesion, other pictures drawn again alike, shares by kind."""

from collections import Counter
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from common.data.dataset import Dataset
from common.data.splits import assign_splits
from simulations.experiments.drawn_pictures import DRAWN, SIZE
from simulations.experiments.not_a_lesion import Pictures, gather, table
from simulations.experiments.sample_pictures import SAMPLES

EACH = 2


def test_lesions_have_one_image_and_one_part_and_pictures_are_drawn_again_alike(
    synthetic_folder: Path,
) -> None:
    dataset = Dataset.open(synthetic_folder)
    dataset = dataset.with_splits(assign_splits(dataset, 0.3, 3, seed=0))
    first, second = (gather(dataset, 10, EACH) for _ in range(2))
    assert first.files == second.files
    names = {dataset.read(image.image_id): image for image in dataset.images}
    shown = [names[file] for file in first.files if file in names]
    assert len({image.lesion_id for image in shown}) == len(shown)
    wanted = {"test": "test", "0": "validation", "1": "train", "2": "train"}
    assert [wanted[image.split] for image in shown] == [part for part in first.parts if part]
    kinds = Counter(first.kinds[first.parts == ""].tolist())
    assert {kind: kinds[kind] for kind in (*DRAWN, *SAMPLES)} == dict.fromkeys(
        (*DRAWN, *SAMPLES), EACH
    )
    for file in np.array(first.files, dtype=object)[first.parts == ""]:
        assert Image.open(BytesIO(file)).size == SIZE


def test_a_table_has_shares_by_source_and_kind() -> None:
    kinds = np.array(["a", "a", "b", "cat", "cat", "cat", "cat"])
    parts = np.array(["test", "train", "test", "", "", "", ""])
    flags = np.array([False, True, True, True, True, True, False])
    pictures = Pictures([b""] * 7, kinds, parts, np.zeros(7, dtype=np.int64))
    rows = [line.split(" | ")[:3] for line in table(flags, pictures)][2:]
    assert rows == [
        ["| test lesions", "2", "50.0 %"],
        ["| test lesions of a", "1", "0.0 %"],
        ["| test lesions of b", "1", "100.0 %"],
        ["| all other pictures", "4", "75.0 %"],
        ["| cat", "4", "75.0 %"],
    ]
