"""What the methods on frozen features compute ahead of a run."""

from pathlib import Path

from common.config.run import RunConfig
from common.data.dataset import Dataset
from common.features.extract import extract


def prepare(dataset: Dataset, config: RunConfig, cache: Path) -> None:
    """Compute the frozen features of images.

    Raises
    ------
    ConfigError
        If the network cannot be used.
    DataError
        If an image cannot be decoded.
    """
    extract(dataset, config.feature_spec, cache, progress=True)
