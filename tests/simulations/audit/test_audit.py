"""``fedderm privacy audit`` as a user types it, on small runs of every method."""

import json
import shutil
from pathlib import Path

import pytest

import client.privacy.clipped
import simulations.audit.methods
from common.config.run import RunConfig, settings_of
from common.methods import METHODS
from common.synthetic_note import SYNTHETIC_NOTE
from simulations.audit.audited_run import open_run
from simulations.audit.methods import HEAD_STAND_IN, STAND_IN
from tests.commands import IID, Type, is_one_error

METADATA = "metadata=age,sex,localization"
PRIVATE = ("method=private", "epsilon=2", "steps=6", "components=64", METADATA)
DISTRIBUTED = ("trust=distributed", "honest=2")


@pytest.fixture
def private(fedderm: Type, synthetic_folder: Path, settings: list[str], tmp_path: Path) -> Path:
    """Train with shared noise over two sites; return the folder given to ``--out``."""
    rest = _used_by("private", settings)
    out = tmp_path / "private"
    command = ("simulate", synthetic_folder, "--out", out, *IID, *rest, *PRIVATE, *DISTRIBUTED)
    assert fedderm(*command)[0] == 0
    return out


def _used_by(method: str, settings: list[str]) -> list[str]:
    """Return what a method uses of the settings of another one."""
    used = set(settings_of(METHODS[method])) - {"method", "steps", "components"}
    return [setting for setting in settings if setting.partition("=")[0] in used]


def _audited(fedderm: Type, run: Path, file: Path, *arguments: object) -> tuple[dict, str]:
    code, out, err = fedderm("privacy", "audit", run, "--out", file, *arguments)
    assert (code, err) == (0, "")
    return json.loads(file.read_text()), out


def test_a_private_run_keeps_its_promise(fedderm, private, tmp_path):
    found, shown = _audited(fedderm, private, tmp_path / "audit.json")
    assert shown.startswith(SYNTHETIC_NOTE)
    assert "epsilon 2 at delta 1e-05 is promised for each lesion_id, trust=distributed" in shown
    assert "not measurable" in shown  # a thousandth of so few lesions
    attacks = found["found"]
    assert open_run(private).private_units().X.shape[1] == 64 + 11 + 3 + 27
    assert attacks["sites"] == 2
    assert attacks["one_run"]["bound"] < 2
    noisy, _, plain = attacks["reconstruction"]
    assert plain["median"] > 0.99 > 0.5 > noisy["median"]
    assert found["command"].startswith("fedderm privacy audit")


def test_a_promise_that_is_broken_is_said_and_fails(fedderm, private, monkeypatch, tmp_path):
    real = client.privacy.clipped.noisy
    monkeypatch.setattr(
        "client.privacy.clipped.noisy", lambda v, norm, noise, r: real(v, norm, 0.0, r)
    )
    code, out, _ = fedderm("privacy", "audit", private, "--out", tmp_path / "audit.json")
    assert code == 1
    assert out.rstrip().endswith("NOT AS PRIVATE AS CLAIMED: epsilon 2 is refuted.")
    assert (tmp_path / "audit.json").exists()


def test_an_svm_shows_all(fedderm, finished, tmp_path):
    found, shown = _audited(fedderm, finished, tmp_path / "audit.json")
    attacks = found["found"]
    assert "no privacy is promised" in shown
    assert attacks["one_run"]["bound"] == attacks["one_run"]["largest"] > 4
    assert attacks["reconstruction"][0]["median"] == pytest.approx(1)
    assert attacks["membership"]["auc"] > 0.6


@pytest.mark.parametrize("head", [("head=lda",), ("kernel=rbf", "fourier=64")], ids="-".join)
def test_so_do_its_other_heads(fedderm, synthetic_folder, settings, tmp_path, head):
    run = tmp_path / "run"
    code, _, err = fedderm("simulate", synthetic_folder, "--out", run, *IID, *settings, *head)
    assert code == 0, err
    found, shown = _audited(fedderm, run, tmp_path / "audit.json")
    assert found["found"]["membership"]["auc"] > 0.6
    assert f"{head[0].removeprefix('head=')} heads" in shown or "svm heads" in shown


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what stands in a network's place have few dimensions and steps."""
    stand_in = simulations.audit.methods.stand_in

    def small(config: RunConfig) -> RunConfig:
        return stand_in(config).model_copy(update={"components": 64, "steps": 5})

    monkeypatch.setattr("simulations.audit.methods.stand_in", small)


@pytest.mark.usefixtures("few")
def test_a_network_trained_privately_keeps_its_promise(fedderm, synthetic_folder, tune, tmp_path):
    private = ("method=private_finetune", "opens=head", "epsilon=2", "steps=4", METADATA)
    run, rest = tmp_path / "run", _used_by("private_finetune", tune)
    command = ("simulate", synthetic_folder, "--out", run, *IID, *rest, *private, *DISTRIBUTED)
    assert fedderm(*command)[0] == 0
    found, shown = _audited(fedderm, run, tmp_path / "audit.json")
    assert HEAD_STAND_IN in shown
    assert found["found"]["one_run"]["bound"] < 2
    assert found["found"]["one_run"]["largest"] > 2


@pytest.mark.usefixtures("few")
def test_of_fine_tuning_it_is_said_what_is_attacked(fedderm, tuned, tmp_path):
    run = tmp_path / "moved"  # without its sites, which lie where they were
    shutil.copytree(tuned / "run", run)
    found, shown = _audited(fedderm, run, tmp_path / "audit.json")
    assert STAND_IN in shown
    assert found["epsilon"] is None
    assert found["found"]["reconstruction"][0]["median"] > 0.99


def test_sites_that_are_gone_can_be_replaced_by_their_data(fedderm, private, synthetic_folder):
    before = open_run(private).private_units()
    shutil.rmtree(private / "sites")
    refused = fedderm("privacy", "audit", private)
    assert is_one_error(*refused)
    assert "its sites are gone" in refused[2]
    assert "--data" in refused[2]
    units = open_run(private / "run", synthetic_folder).private_units()
    assert len(units) == len(before)
    assert units.sites == 2  # with the noise of fewer, the run would not be that of the claim


def test_a_mistake_is_one_line(fedderm, finished, tmp_path):
    (tmp_path / "there.json").touch()
    for arguments, reason in [
        ((tmp_path,), "holds no finished run; name the folder given to --out"),
        ((finished, "--out", tmp_path / "there.json"), "name a new file"),
        ((finished, "--data", tmp_path), "describe its table in data.toml"),
    ]:
        refused = fedderm("privacy", "audit", *arguments)
        assert is_one_error(*refused)
        assert reason in refused[2]
