"""The checks of a soak find what they are there for, and its faults are those of its seed."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from client.privacy.ledger import Ledger, Release
from common.config.run import RunConfig
from common.privacy.accounting import SampledGaussian
from server.deployment.operations import Coordinator
from server.run.folder import MODEL_FILE
from simulations.runtimes.loopback import Loopback
from simulations.soak import checks
from simulations.soak.checks import BrokenError
from simulations.soak.faults import Hosts
from simulations.soak.soak import EXACT, PRIVATE
from simulations.soak.usage import Usage, usage

SITES = ["site_00", "site_01"]
LINE = "     1  2026-01-01T00:00:00  run 1  round 4  moments  9 bytes  "
HIDDEN = f"{LINE}masked [9], gram [4] norm 3 hidden"
PAID = f"{LINE}masked [6], values [2, 3] norm 1 hidden, epsilon 1 spent"
CLEAR = f"{LINE}masked [9], gram [4] norm 3e+02"


def federation(tmp_path: Path, *entries: dict[str, Any]) -> Any:
    return SimpleNamespace(
        sites=SITES,
        coordinator=tmp_path,
        site_file=lambda name: tmp_path / name,
        rounds=lambda out: list(entries),
    )


def test_one_other_bit_is_another_model(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / MODEL_FILE).write_bytes(b"\x00\x01")
    checks.same_model(federation(tmp_path), "run", b"\x00\x01")
    with pytest.raises(BrokenError, match="not that of the run in process"):
        checks.same_model(federation(tmp_path), "run", b"\x00\x03")


@pytest.fixture
def log(monkeypatch) -> list[str]:
    """Return the lines of every site's egress log."""
    lines: list[str] = []
    monkeypatch.setattr(checks.Operator, "read", lambda file: file)
    monkeypatch.setattr(checks, "lines_of", lambda operator: iter([*lines, "verified: 9"]))
    return lines


def test_a_record_without_a_mask_is_a_leak(tmp_path, log):
    log += [HIDDEN, PAID]
    said = [*checks.nothing_leaked(federation(tmp_path))]
    assert said == [f"{name}: verified: 9" for name in SITES]
    log.append(CLEAR)
    with pytest.raises(BrokenError, match="'gram' left site_00 as it is"):
        [*checks.nothing_leaked(federation(tmp_path))]


def test_whoever_is_named_at_the_coordinator_or_in_a_log_is_found(tmp_path):
    deployed = SimpleNamespace(coordinator=tmp_path / "coordinator", logs=tmp_path / "logs")
    for folder in vars(deployed).values():
        folder.mkdir()
        (folder / "file").write_bytes(b"\xffISIC_1\x00HAM_22")
    checks.nothing_named(deployed, {"ISIC_2", "HAM.22"})
    for name in ("ISIC_1", "HAM_22"):
        with pytest.raises(BrokenError, match=f"file names '{name}'"):
            checks.nothing_named(deployed, {"ISIC_2", name})
    (deployed.coordinator / "file").unlink()
    with pytest.raises(BrokenError, match="logs/file names 'HAM_22'"):
        checks.nothing_named(deployed, {"HAM_22"})


def test_a_budget_that_is_spent_twice_is_found(tmp_path, monkeypatch):
    cost = SampledGaussian(1.0, 1.0, 2)
    place = SimpleNamespace(state=tmp_path, seals=tmp_path / "seals")
    monkeypatch.setattr(checks.Operator, "read", lambda file: place)
    checks.paid_once(federation(tmp_path), [cost], runs=0)  # before there is a ledger
    (tmp_path / "ledger").mkdir()
    ledger = Ledger.open(tmp_path / "ledger", "digest", "lesion_id", 100.0, 1e-5, place.seals)
    ledger.reserve(Release(cost, "run 1"))
    checks.paid_once(federation(tmp_path), [cost], runs=1)
    ledger.reserve(Release(cost, "run 1"))
    with pytest.raises(BrokenError, match="site_00 has 2 entries for 1 runs"):
        checks.paid_once(federation(tmp_path), [cost], runs=1)


@pytest.mark.parametrize("settings", [EXACT, PRIVATE])
def test_the_coordinators_file_has_the_whole_configuration(tmp_path, settings):
    meant = RunConfig.read({**settings, "out": "run-1"})
    deployed = Loopback(tmp_path / "all", dict.fromkeys("abc", tmp_path), RunConfig())
    deployed.configure(meant)
    assert RunConfig.read(Coordinator.read(deployed.coordinator).run) == meant


def test_sums_of_all_are_counted_but_not_what_each_start_asks(tmp_path):
    def entry(question: str, **faults: str) -> dict[str, Any]:
        return {"question": question, "answered": SITES, "faults": faults}

    log = [
        entry("join"),
        entry("prepare"),
        entry("moments", site_00="gone"),
        *2 * [entry("moments")],
    ]
    assert checks.asked(federation(tmp_path, *log), "run") == {"moments": 2}


def test_what_a_process_holds_is_counted(tmp_path):
    before = usage([os.getpid()], tmp_path)
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "file").write_bytes(bytes(3_000_000))
    with open(tmp_path / "deep" / "file"), open(tmp_path / "deep" / "file"):
        after = usage([os.getpid(), 2**30], tmp_path)  # none has the second number
    assert before.processes == after.processes == 1
    assert after.handles - before.handles == 2
    assert after.megabytes > 10
    bounds = Usage(0, 1e6, 1, 2.0)
    assert [line.split()[0] for line in after.grown(before, bounds)] == [
        "handles",
        "disk_megabytes",
    ]


def test_faults_are_those_of_the_seed_and_of_what_hosts_have():
    deployment = SimpleNamespace(federation=SimpleNamespace(sites=SITES))
    hosts = Hosts(deployment, {"site_01": object()}, lambda: None)  # type: ignore[arg-type]

    def drawn(seed: int) -> list[str]:
        rng = np.random.default_rng(seed)
        return [str(fault) for _ in range(50) for fault in hosts.drawn(rng, 12)]

    assert drawn(1) == drawn(1) != drawn(2)
    assert any("disk full at site_01" in fault for fault in drawn(1))
    assert not any("disk full at site_00" in fault for fault in drawn(1))
