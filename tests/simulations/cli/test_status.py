"""What ``fedderm status`` says of real folders, whole and spoiled, while nothing is started."""

import json
import os
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Message
from prometheus_client.parser import text_string_to_metric_families

from client.app import app
from client.egress.log_files import FILE as LOG
from client.open_site import SITE
from client.operator.site_rules import Operator
from client.privacy.ledger import FILE as LEDGER
from client.privacy.ledger import Ledger, Release
from common.config.run import RunConfig
from common.errors import ConfigError, Reason
from common.operation.status import Code, Level, Status
from common.privacy.accounting import SampledGaussian
from common.storage.whole_files import owned
from server.deployment import operations
from server.federation.question import content_of
from server.run.folder import MODEL_FILE, ROUNDS_FILE
from server.run.progress import TRAINING_FILE
from simulations.cli.status import look
from simulations.runtimes.experiment import rounds, simulate
from simulations.runtimes.in_process import InProcessGrid
from simulations.runtimes.loopback import set_keys
from tests.sites import make_quick_sites, with_changes

SITES = ["site_00", "site_01", "site_02"]
NOW = datetime.now(UTC)


@pytest.fixture(scope="module")
def config(synthetic_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """Configure a quick run over three sites."""
    base = make_quick_sites(synthetic_folder, tmp_path_factory.mktemp("sites"), len(SITES))
    return with_changes(base, {"head": "ridge", "quorum": 3, "components": 16})


@pytest.fixture(scope="module")
def finished(config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run to the end; tests must not change it."""
    run = config.model_copy(update={"out": tmp_path_factory.mktemp("runs") / "run"})
    simulate(run)
    return run.out


@pytest.fixture
def federation(tmp_path: Path, config: RunConfig, finished: Path) -> Path:
    """Make the folders of coordinator and sites, with a finished run."""
    out = tmp_path / "all"
    operations.init(out, SITES, ["127.0.0.1"], port=1)
    shutil.copytree(finished, out / "coordinator" / "run")
    for name in SITES:
        places = {"data": str(config.sites / name), "cache": str(config.cache), "seals": "seals"}
        set_keys(out / name / "site.toml", {**places, "port": 1, "least_sites": 0})
    return out


@pytest.fixture
def coordinator(federation: Path) -> Path:
    return federation / "coordinator"


@pytest.fixture
def site(federation: Path, config: RunConfig) -> Path:
    """Let a site answer once and refuse once."""
    folder = federation / SITES[0]
    set_keys(folder / "site.toml", {"least_lesions": 0, "min_active": 1, "least_count": 0})
    grid = InProcessGrid(app, [{SITE: str(folder / "site.toml")}], config.flat())
    for question in ("join", "nothing"):
        grid.send_and_receive([Message(content_of(question, {}), 1, "query")])
    return folder


def levels(status: Status) -> dict[str, Level]:
    return {notice.code: notice.level for notice in status.notices}


def run_of(coordinator: Path) -> dict[str, Any]:
    run: dict[str, Any] = look(coordinator, datetime.now(UTC)).as_json()["run"]
    return run


def files_below(folder: Path) -> Iterator[tuple[str, bytes]]:
    return ((str(path), path.read_bytes()) for path in folder.rglob("*") if path.is_file())


def test_a_look_tells_all_and_changes_nothing(federation, coordinator, finished):
    before = dict(files_below(federation))
    status = look(coordinator, NOW)
    assert levels(status) == {Code.SERVER: Level.ALARM}
    asked = rounds(finished)
    run = status.as_json()["run"]
    assert (run["state"], run["method"], run["members"]) == ("finished", "svm", SITES)
    assert (run["rounds"], run["question"]) == (len(asked), "close")
    assert run["bytes_up"] == sum(line["bytes_up"] for line in asked)
    for name in SITES:
        assert levels(look(federation / name, NOW)) == {Code.NODE: Level.ALARM}
    assert dict(files_below(federation)) == before
    (coordinator / "new").mkdir()
    shutil.rmtree(coordinator / "run")
    assert look(coordinator, NOW).as_json()["run"] is None


def test_a_run_that_is_going_on_tells_how_long_it_will(coordinator):
    run, ago = coordinator / "run", NOW.timestamp() - 5
    (run / MODEL_FILE).unlink()
    line = {"round": 4, "stage": "all", "rounds": 10, "seconds_left": 60.0}
    (run / TRAINING_FILE).write_text(json.dumps(line) + '\n{"round": 5, "sta')
    for name in (TRAINING_FILE, ROUNDS_FILE):
        os.utime(run / name, (ago, ago))
    with owned(run):
        status = look(coordinator, NOW)
    found = status.as_json()["run"]
    assert found["state"] == "running"
    assert [found[key] for key in ("trained", "planned", "seconds_left")] == [4, 10, 55]
    assert found["seconds_since"] == 5
    assert "round 4 of 10, about 55 s left" in "\n".join(status.text())


def line(question: str, answered: list[str], **faults: str) -> str:
    keys = {"round": 1, "question": question, "answered": answered, "faults": faults}
    return json.dumps({**keys, "notes": [], "bytes_down": 1, "bytes_up": 1, "seconds": 0.1}) + "\n"


def test_a_run_that_stopped_below_its_quorum_is_an_alarm(coordinator):
    run = coordinator / "run"
    (run / MODEL_FILE).unlink()
    a, b, c = SITES
    lines = [line("join", SITES), line("moments", [a, c], **{b: "is \x1b[2J away"})]
    (run / ROUNDS_FILE).write_text("".join([*lines, line("close", [a, c]), '{"round": 4,']))
    status = look(coordinator, NOW)
    assert levels(status) == {
        Code.SERVER: Level.ALARM,
        Code.QUORUM: Level.ALARM,
        Code.LEFT_OUT: Level.WARNING,
    }
    assert (found := status.as_json()["run"])["left_out"] == {b: "is \x1b[2J away"}
    assert (found["rounds"], found["refusals"], found["members"]) == (3, {b: 1}, [a, c])
    assert all(text.isprintable() for text in status.text())
    # Back again: it was asked alone, then the run was killed.
    (run / ROUNDS_FILE).write_text("".join([*lines, line("join", [b])]))
    assert levels(look(coordinator, NOW)).keys() == {Code.SERVER, Code.STOPPED}
    assert run_of(coordinator)["members"] == SITES
    # A start asks all.
    (run / ROUNDS_FILE).write_text("".join([*lines, line("join", [a, b], **{"node 7": "odd"})]))
    assert run_of(coordinator)["members"] == [a, b]
    for name in ("config.json", "rounds.jsonl"):
        (run / name).write_text('{"half')
    assert run_of(coordinator)["rounds"] == 0


def test_the_run_that_was_started_last_is_shown(coordinator, federation):
    (coordinator / "flwr").mkdir()
    (coordinator / operations.RUN_FILE).write_text(f'12\nout = "{federation / "elsewhere"}"\n')
    assert run_of(coordinator) is None
    shutil.move(coordinator / "run", federation / "elsewhere")
    assert run_of(coordinator)["folder"] == str(federation / "elsewhere")


@pytest.mark.parametrize(
    ("days", "level"), [(360, None), (380, Level.WARNING), (400, Level.ALARM), (3640, Level.ALARM)]
)
def test_a_certificate_warns_before_its_end(coordinator, days, level):
    status = look(coordinator, NOW + timedelta(days=days))
    assert levels(status).get(Code.CERTIFICATE) == level
    left = status.as_json()["certificates"]
    assert left["server.crt"] == pytest.approx(397 - days, abs=0.1)
    assert left["ca.crt"] == pytest.approx(3650 - days, abs=0.1)
    (coordinator / "server.crt").write_text("no certificate")
    assert levels(look(coordinator, NOW))[Code.CERTIFICATE] == Level.ALARM


def test_a_site_tells_what_left_and_why_not(site):
    status = look(site, NOW + timedelta(hours=1))
    assert levels(status) == {Code.NODE: Level.ALARM, Code.REFUSED: Level.WARNING}
    log = status.as_json()["log"]
    assert (log["verified"], log["messages"], log["refused_today"]) == (True, 2, {Reason.FORM: 1})
    assert [entry["question"] for entry in log["last"]] == ["join", "nothing"]
    quotas = status.as_json()["quotas"]
    assert quotas["rounds_a_day"] == {"used": 1, "limit": 5000}
    assert quotas["questions"]["used"] == 1
    set_keys(site / "site.toml", {"rounds_a_day": 1})
    assert levels(look(site, NOW))[Code.QUOTA] == Level.WARNING
    # Both are of one day.
    assert levels(look(site, NOW + timedelta(days=2))).keys() == {Code.NODE}


def test_a_log_that_was_changed_or_removed_is_an_alarm(site):
    log = site / "state" / LOG
    log.write_bytes(log.read_bytes().replace(b'"join"', b'"moin"'))
    status = look(site, NOW)
    assert levels(status)[Code.LOG] == Level.ALARM
    assert status.as_json()["log"] == {"verified": False}
    log.unlink()
    assert levels(look(site, NOW))[Code.LOG] == Level.ALARM


def test_the_budget_is_that_of_the_ledger(site):
    set_keys(site / "site.toml", {"epsilon": 2})
    assert look(site, NOW).as_json()["budget"]["left"] == 2
    operator = Operator.read(site / "site.toml")
    folder = operator.state / "ledger"
    ledger = Ledger.open(folder, "ab" * 32, "lesion_id", 2.0, 1e-5, operator.seals)
    assert Code.BUDGET not in levels(look(site, NOW))
    ledger.reserve(Release(SampledGaussian(noise=2.0, rate=1.0), "overview"))
    budget = look(site, NOW).as_json()["budget"]
    assert budget["spent"] == pytest.approx(ledger.account().spent)
    assert budget["spent"] + budget["left"] == pytest.approx(2)
    assert levels(look(site, NOW))[Code.BUDGET] == Level.WARNING
    whole = (folder / LEDGER).read_bytes()
    (folder / LEDGER).write_bytes(whole.replace(b"overview", b"overdone"))
    assert levels(look(site, NOW))[Code.LEDGER] == Level.ALARM
    (folder / LEDGER).unlink()
    assert levels(look(site, NOW))[Code.LEDGER] == Level.ALARM


def test_a_command_gives_page_object_numbers_and_exit_code(fedderm, site, tmp_path):
    code, page, _ = fedderm("status", site)
    assert code == Level.ALARM == 4
    assert page.startswith(f"site {SITES[0]}: ALARM\n")
    file = tmp_path / "fedderm.prom"
    file.write_text("of before")
    code, text, _ = fedderm("status", site, "--json", "--prometheus", file)
    assert (code, json.loads(text)["level"]) == (4, "alarm")
    families = text_string_to_metric_families(file.read_text())
    found = {(s.name, *s.labels.values()): s.value for each in families for s in each.samples}
    assert found["fedderm_status", "site"] == 4
    assert found["fedderm_notice", "node"] == 4
    assert found["fedderm_notice", "refused"] == 3
    assert found["fedderm_refused_today", Reason.FORM] == 1
    assert found["fedderm_quota_used", "rounds_a_day"] == 1
    assert found["fedderm_log_verified",] == 1
    assert file.stat().st_mode & 0o044  # the collector runs under another account
    for name in ("site.toml", "none/x.prom"):
        code, _, said = fedderm("status", site, "--prometheus", site / name)
        assert code == 1
        assert "name a file *.prom" in said


def test_another_folder_is_none_of_these(tmp_path):
    with pytest.raises(ConfigError, match=r"has neither site.toml nor coordinator.toml"):
        look(tmp_path, NOW)


def test_the_documented_keys_are_all_there_are(coordinator, site):
    page = (Path(__file__).parents[3] / "docs" / "deployment.md").read_text()
    section = page.partition("\n## Watching it\n")[2].partition("\n## ")[0]
    for code in Code:
        assert f"| `{code}` |" in section, code
    (coordinator / "run" / MODEL_FILE).unlink()
    for folder in (coordinator, site):
        values = look(folder, NOW).as_json()
        inner = [value for name, value in values.items() if name != "certificates"]
        keys = {key for value in inner if isinstance(value, dict) for key in value}
        for key in {*values} | keys:
            assert f"`{key}`" in section, key
