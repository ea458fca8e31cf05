"""The measure across cameras tells pixels and encoding apart, and pairs what it compares."""

from pathlib import Path

import numpy as np

from common.data.dataset import Dataset
from common.features.transform import Transform
from simulations.experiments.cameras import (
    Encoding,
    balanced_accuracy,
    one_a_lesion,
    paired_interval,
    smaller_camera,
)


def test_only_the_encoding_changes_what_a_smaller_camera_shows(
    synthetic_folder: Path, tmp_path: Path
) -> None:
    dataset = one_a_lesion(Dataset.open(synthetic_folder), 2)
    side = 70  # pixels, not a divisor of the images' own
    seen = Transform(side)
    apart = {}
    for encoding in Encoding:
        smaller = smaller_camera(dataset, side, encoding, tmp_path / encoding)
        assert smaller.lesions.tolist() == dataset.lesions.tolist()
        pairs = [
            [np.asarray(seen.image(d.read(image.image_id)), float) for d in (dataset, smaller)]
            for image in dataset.images
        ]
        apart[encoding] = np.mean([np.abs(one - two).mean() for one, two in pairs])
    assert apart[Encoding.PNG] < 1 < apart[Encoding.JPEG]


def test_a_gap_counts_diagnoses_alike_and_its_interval_holds_it() -> None:
    labels = np.repeat([0, 1], [90, 10])
    better, worse = np.ones(100), np.where(np.arange(100) % 2, 1.0, 0.5)
    worse[90:] = 0.0
    assert balanced_accuracy(labels, better) - balanced_accuracy(labels, worse) == 0.625
    low, high = paired_interval(labels, better, worse)
    assert 0.5 < low < 0.625 < high < 0.75
    np.testing.assert_array_equal(paired_interval(labels, better, better), 0)
