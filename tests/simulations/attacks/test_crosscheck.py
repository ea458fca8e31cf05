"""Sites that judge each other's changes: who lies about labels is out, and nobody else."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from common.config.run import RunConfig
from common.data.dataset import Dataset
from common.task import HAM10000
from server.run.folder import METRICS_FILE
from simulations.attacks.hostile_sites import ATTACKS, poison
from simulations.data.synthetic import write_synthetic
from simulations.runtimes.experiment import make_sites, simulate, split
from tests.commands import TUNE
from tests.finetuning import content_of

SITES, LIAR = 5, 2
RULE = {"robust": "crosscheck", "hostile": 1, "optimizer": "sgd", "momentum": 0, "lr": 0.3}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    folder = tmp_path_factory.mktemp("crosscheck")
    values: dict[str, object] = dict(setting.split("=") for setting in TUNE)
    changes = {"rounds": 2, "folds": 10, "test_fraction": 0.1, "cache": folder / "cache"}
    config = RunConfig.read({**values, **changes, **RULE})
    write_synthetic(folder / "data", images=400, seed=1)
    dataset = split(Dataset.open(folder / "data"), config)
    make_sites(dataset, folder / "sites", "dirichlet", SITES, 100.0, 0)
    return config.model_copy(update={"sites": folder / "sites", "out": folder / "run"})


def left_out(config: RunConfig) -> Mapping[str, str]:
    simulate(config)
    metrics = json.loads((config.out / METRICS_FILE).read_text())
    found: Mapping[str, str] = metrics["data"]["left_out"]
    return found


def test_a_site_that_lies_about_labels_is_out_and_a_run_that_goes_on_leaves_it_out(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sites = poison(config.sites, tmp_path / "lies", ATTACKS["label_flip"], [LIAR], HAM10000, 5)
    lied = config.model_copy(update={"sites": sites, "out": tmp_path / "run"})
    out = left_out(lied)
    assert list(out) == [f"site_{LIAR:02}"]
    assert "less than 0.5 times as well as the median site's" in out["site_02"]
    again = lied.model_copy(update={"out": tmp_path / "again"})
    with monkeypatch.context() as broken:
        broken.setattr("server.methods.finetune._Training._result", _killed)
        with pytest.raises(KeyboardInterrupt):
            simulate(again)
    assert left_out(again).keys() == out.keys()
    assert content_of(again) == content_of(lied)


def _killed(*_: object) -> None:
    raise KeyboardInterrupt


def test_honest_sites_all_stay(config: RunConfig) -> None:
    assert not left_out(config)
