"""Data that several rooms test on."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

from simulations.data.synthetic import write_synthetic

# A busy machine is no failure, and threads that wait in it do so asleep.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
settings.register_profile("fedderm", deadline=None)
settings.register_profile("deep", deadline=None, max_examples=20_000)  # --hypothesis-profile deep
settings.load_profile("fedderm")


@pytest.fixture(scope="session")
def synthetic_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Generate 120 images; tests must not change them."""
    folder = tmp_path_factory.mktemp("synthetic")
    write_synthetic(folder, images=120, seed=1)
    return folder


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Find HAM10000, or skip the test."""
    default = Path(__file__).parents[2] / "shared" / "ham10000"
    folder = Path(os.environ.get("FEDDERM_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"no HAM10000 at {folder}; set FEDDERM_DATA")
    return folder


@pytest.fixture(scope="session")
def network_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the weights of a small network; tests must not change them."""
    from tests.finetuning import write_network  # it imports PyTorch

    return write_network(tmp_path_factory.mktemp("network") / "weights.safetensors")
