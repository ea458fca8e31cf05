"""Private fine-tuning, from the first question to the model."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from common.config.run import RunConfig
from common.errors import ConfigError
from server.run.folder import CARD_FILE
from simulations.runtimes.experiment import simulate
from tests.finetuning import SITES, STAGE, changed, dealt, model_of, quick, spread

SETTINGS: dict[str, Any] = {"method": "private_finetune", "opens": STAGE, "steps": 4}
COLUMNS = "age,sex,localization"
MakeRun = Callable[..., RunConfig]


@pytest.fixture
def make_run(dataset, network_file, cache, tmp_path) -> MakeRun:
    """Configure a run over new sites, whose ledgers are empty."""

    def make(name: str, sites: int = SITES, **settings: Any) -> RunConfig:
        folder = spread(dataset, tmp_path / name, dealt(sites))
        config = quick(folder, network_file, cache=cache)
        return changed(config, folder / "run", **{**SETTINGS, **settings})

    return make


@pytest.mark.parametrize("fusion", ["", "late", "gate"])
def test_without_noise_three_sites_have_the_model_of_one(make_run, monkeypatch, fusion):
    # The first image and view of each lesion, always.
    monkeypatch.setattr("client.privacy.draws.randomness", bytes)
    own = {"metadata": COLUMNS, "metadata_dropped": 0, "fusion": fusion} if fusion else {}
    one, three = (make_run(f"{n}", sites=n, **own) for n in (1, SITES))
    losses = [simulate(run)["overall"]["log_loss"] for run in (one, three)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    ours, theirs = model_of(three).weights, model_of(one).weights
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        np.testing.assert_allclose(tensor, theirs[name], atol=1e-4)
    assert np.abs(ours["head.weight"]).max() > 0.005
    of_patients = [tensor for name, tensor in ours.items() if name.startswith("metadata.")]
    assert all(tensor.any() for tensor in of_patients)
    assert len(of_patients) == {"": 0, "late": 1, "gate": 2}[fusion]


def test_a_private_run_ends_with_a_network_and_says_what_it_promises(make_run):
    run = make_run("run", epsilon=4, trust="distributed", honest=SITES)
    metrics = simulate(run)
    assert metrics["training"]["noise"] > 1
    card = (run.out / CARD_FILE).read_text()
    assert "epsilon 4, delta 1e-05, for each `lesion_id`" in card
    assert f"trained from {STAGE} on" in card
    assert model_of(run).weights["head.weight"].shape[0] == 7


def test_secure_sums_carry_it(make_run):
    shared = {"trust": "distributed", "honest": SITES, "secure": True}
    run = make_run("run", epsilon=4, metadata=COLUMNS, **shared)
    assert simulate(run)["overall"]["n"] > 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"opens": "all"}, "'opens' is all"),
        ({"head": "hinge"}, "'head' is hinge"),
        ({"views": 0}, "'views' is 0"),
    ],
)
def test_what_cannot_be_trained_privately_is_no_configuration(settings, message):
    with pytest.raises(ConfigError, match=message):
        RunConfig.read({"method": "private_finetune", **settings})


def test_a_module_that_does_not_exist_is_named(make_run):
    with pytest.raises(ConfigError, match="'nowhere' names no part"):
        simulate(make_run("run", opens="nowhere"))
