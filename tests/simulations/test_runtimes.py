"""The real apps give one model, in this process and under ``flwr run``."""

from pathlib import Path

import numpy as np
import pytest

from client.ledger import SEAL_FOLDER, Ledger
from client.site import site_folders
from common.config import RunConfig
from common.errors import QuorumError
from common.model import LinearModel
from common.network_model import NetworkModel
from common.splits import TEST
from server.progress import TRAINING_FILE
from server.run import MODEL_FILE
from simulations.experiment import make_sites, rounds, simulate, with_splits
from simulations.flower import flwr_run
from simulations.synthetic import write_synthetic
from tests.finetuning import dealt, quick, small_dataset, spread
from tests.sites import N_FEATURES, QUICK, make_quick_sites

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def config(synthetic_folder, tmp_path_factory) -> RunConfig:
    """Two sites that both runtimes wait for."""
    config = make_quick_sites(synthetic_folder, tmp_path_factory.mktemp("sites"), 2)
    return config.model_copy(update={"expected": 2, "quorum": 2, "c": (1e-4,)})


def test_from_image_files_to_a_diagnosis(tmp_path):
    """With the real network, on as few and as small images as it takes."""
    write_synthetic(tmp_path / "data", images=60, seed=3)
    config = QUICK.model_copy(
        update={"size": 64, "components": 64, "c": (1e-5,), "cache": tmp_path / "cache"}
    )
    dataset = with_splits(tmp_path / "data", config)
    make_sites(dataset, tmp_path / "sites", "iid", 2, 1.0, 0)
    run = config.model_copy(update={"sites": tmp_path / "sites", "out": tmp_path / "run"})
    metrics = simulate(run)
    # From the run's folder alone, as `fedderm predict` does.
    model = LinearModel.load(run.out / MODEL_FILE)
    test = [image for image in dataset.images if image.split == TEST]
    files = {image.image_id: dataset.read(image.image_id) for image in test}
    predicted, probabilities, _ = model.predict(files)
    correct = np.mean([model.classes[p] == i.dx for p, i in zip(predicted, test, strict=True)])
    assert metrics["overall"]["n"] == len(test)
    assert metrics["overall"]["accuracy"] == pytest.approx(correct)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0)


def test_flwr_run_trains_the_model_of_the_in_process_run(config, tmp_path):
    here = config.model_copy(update={"out": tmp_path / "here"})
    simulate(here)
    there = config.model_copy(update={"out": tmp_path / "there"})
    run = flwr_run(ROOT, there.flat(), sites=2, home=tmp_path / "home")
    assert run.returncode == 0, run.stdout
    assert [entry["question"] for entry in rounds(there.out)] == [
        entry["question"] for entry in rounds(here.out)
    ]
    views = np.random.default_rng(0).standard_normal((50, 1, N_FEATURES))
    found = LinearModel.load(there.out / MODEL_FILE)
    expected = LinearModel.load(here.out / MODEL_FILE)
    # Ray gives a site other numbers of threads: for large matrices, the last bits may differ.
    np.testing.assert_allclose(found.scores(views), expected.scores(views), rtol=0, atol=1e-12)


def test_so_it_does_with_fine_tuning(synthetic_folder, network_file, tmp_path):
    spread(small_dataset(synthetic_folder), tmp_path, dealt(2))
    config = quick(tmp_path, network_file, rounds=1, expected=2, quorum=2, personal=1)
    here = config.model_copy(update={"out": tmp_path / "here", "cache": tmp_path / "cache-here"})
    simulate(here)
    there = config.model_copy(update={"out": tmp_path / "there"})
    run = flwr_run(ROOT, there.flat(), sites=2, home=tmp_path / "home")
    assert run.returncode == 0, run.stdout
    found, expected = (NetworkModel.load(each.out / MODEL_FILE) for each in (there, here))
    assert found.weights.keys() == expected.weights.keys()
    for name, tensor in expected.weights.items():
        np.testing.assert_array_equal(found.weights[name], tensor)
    asked = [[entry["question"] for entry in rounds(each.out)] for each in (there, here)]
    assert asked[0] == asked[1]
    lines = [(each.out / TRAINING_FILE).read_text().splitlines() for each in (there, here)]
    assert len(lines[0]) == len(lines[1]) == 3


def test_a_private_run_is_paid_for_under_every_runtime(synthetic_folder, tmp_path):
    base = make_quick_sites(synthetic_folder, tmp_path, 2)
    private = {"method": "private", "epsilon": 4.0, "steps": 3, "projection": 16}
    config = RunConfig.read({**base.flat(), **private, "expected": 2, "quorum": 2})
    run = flwr_run(ROOT, {**config.flat(), "out": str(tmp_path / "run")}, 2, tmp_path / "home")
    assert run.returncode == 0, run.stdout
    assert LinearModel.load(tmp_path / "run" / MODEL_FILE).config.epsilon == 4
    for folder in site_folders(config.sites):
        account = Ledger(folder / "ledger", folder / "ledger" / SEAL_FOLDER).account()
        assert account.spent == pytest.approx(4, abs=0.01)
    with pytest.raises(QuorumError, match="the privacy budget does not allow 'overview'"):
        simulate(config.model_copy(update={"out": tmp_path / "again"}))


def test_a_secure_run_has_the_same_sums_under_every_runtime(synthetic_folder, tmp_path):
    base = make_quick_sites(synthetic_folder, tmp_path, 3)
    changes = {"head": "ridge", "secure": True, "expected": 3, "quorum": 3}
    here, there = (
        RunConfig.read({**base.flat(), **changes, "out": tmp_path / name})
        for name in ("here", "there")
    )
    simulate(here)
    run = flwr_run(ROOT, there.flat(), sites=3, home=tmp_path / "home")
    assert run.returncode == 0, run.stdout
    asked = [[entry["question"] for entry in rounds(each.out)] for each in (here, there)]
    assert asked[0] == asked[1]
    assert "secure.unmask" in asked[0]
    found, expected = (LinearModel.load(each.out / MODEL_FILE) for each in (there, here))
    np.testing.assert_allclose(found.weights, expected.weights, rtol=0, atol=1e-9)
