"""The measure of copies counts every pair once and finds what is a copy."""

import numpy as np

from common.data.dataset import Dataset
from simulations.experiments.duplicates import distances, main


def test_every_pair_is_counted_once():
    bits = np.random.default_rng(0).integers(0, 2, (300, 256), dtype=np.uint8)
    hashes = np.packbits(bits, axis=1).view(np.uint64)
    lesions = np.arange(300) // 3
    same, different = distances(hashes, lesions)
    apart = [(bits[i] != bits[j]).sum() for i in range(300) for j in range(i) if i // 3 == j // 3]
    np.testing.assert_array_equal(same, np.bincount(apart, minlength=257))
    assert same.sum() + different.sum() == 300 * 299 // 2


def test_copies_of_generated_images_are_found(synthetic_folder, capsys):
    main(synthetic_folder)
    printed = capsys.readouterr().out
    assert f"{len(Dataset.open(synthetic_folder)) // 10} copies of each kind" in printed
    assert "| JPEG of quality 50 | 1.0000 |" in printed
