"""Writes the public components of private runs: ``python -m simulations.data.public_components``.

It takes a few minutes. Another machine's features differ in their last digits, so the file does.
"""

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from common.data.dataset import Dataset
from common.features.extract import FeatureSpec, extract
from common.privacy.public_components import FILE, PublicComponents
from simulations.data.synthetic import write_synthetic

IMAGES, SEED, SIZE = 1500, 7, 256
"""Generated pictures, their seed, and components that are kept."""


def write_public_components(
    file: Path = FILE, images: int = IMAGES, size: int = SIZE, spec: FeatureSpec | None = None
) -> None:
    """Generate pictures, compute their features, and write their components.

    Parameters
    ----------
    spec : the features; by default those of a private run, of four views.
    """
    spec = spec or replace(FeatureSpec(), views=3, predictions=1)
    with tempfile.TemporaryDirectory() as folder:
        pictures = Path(folder) / "pictures"
        write_synthetic(pictures, images, SEED)
        features = extract(Dataset.open(pictures), spec, Path(folder) / "cache", progress=True)
    PublicComponents.compute(features.views.astype(np.float64), size).write(file)


if __name__ == "__main__":
    write_public_components()
