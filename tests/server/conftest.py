"""A short federated fine-tuning that many tests change a little."""

from pathlib import Path

import pytest

from common.config.run import RunConfig
from common.data.dataset import Dataset


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keep the activations of all runs."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def dataset(synthetic_folder: Path) -> Dataset:
    """Take a few images."""
    from tests.finetuning import small_dataset  # it imports PyTorch

    return small_dataset(synthetic_folder, images=30)


@pytest.fixture(scope="session")
def base(dataset, network_file, cache, tmp_path_factory) -> RunConfig:
    """Spread them over three sites; configure a run with AdamW in three stages."""
    from tests.finetuning import SITES, dealt, quick, spread

    folder = spread(dataset, tmp_path_factory.mktemp("three"), dealt(SITES))
    return quick(folder, network_file, cache=cache, batch=8)
