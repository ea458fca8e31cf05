"""Three hospitals and a coordinator as real processes on this machine, over TLS and with keys.

One federation serves all tests here, in their order: starting it and every message cost seconds.
"""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client.egress.log import lines_of
from client.open_site import site_folders
from client.operator.node_key import NEXT, public_key
from client.operator.site_rules import Operator
from client.privacy.ledger import Ledger
from common.answers.verdict import ALL, REFUSED
from common.config.run import RunConfig
from common.data.tables.ham10000 import METADATA_FILE
from common.errors import Reason
from common.flower_commands import flwr, flwr_environment
from common.models.linear import LinearModel
from common.operation.status import Level
from common.site_folder import NODE_KEY
from server.deployment import operations
from server.deployment.pki import make_authority, make_server
from server.run.folder import MODEL_FILE, STATISTICS_FILE
from simulations.cli.status import look
from simulations.runtimes.experiment import rounds, simulate
from simulations.runtimes.flower_run import free_ports
from simulations.runtimes.loopback import Loopback, set_keys
from tests.sites import N_FEATURES, make_quick_sites, with_changes

SITES = 3
PLAIN = {"least_sites": 0, "least_count": 0, "least_lesions": 0, "min_active": 1}
"""Rules of a hospital that shows its sums to the coordinator."""

QUICK = {"head": "ridge", "timeout": 60, "quorum": 2}
"""A run of few questions."""


@pytest.fixture(scope="module")
def config(synthetic_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """Configure an SVM that is solved in few rounds, over these sites."""
    base = make_quick_sites(synthetic_folder, tmp_path_factory.mktemp("sites"), SITES)
    few = {"c": 1e-5, "tolerance": 1e-3, "components": 16, "expected": SITES, "quorum": SITES}
    return with_changes(base, {**few, "timeout": 60})


@pytest.fixture(scope="module")
def federation(config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loopback]:
    """Start the server and all nodes."""
    folder = tmp_path_factory.mktemp("federation") / "all"
    data = {path.name: path for path in site_folders(config.sites)}
    rules = {**PLAIN, "epsilon": 4, "cache": str(config.cache)}
    with Loopback(folder, data, config, rules) as started:
        started.start_server()
        for name in started.sites:
            started.start_node(name)
        started.wait_for_nodes(started.sites)
        yield started


def configured(federation: Loopback, config: RunConfig, out: str, **changes: Any) -> RunConfig:
    """Configure the next run; return its configuration, with where it lies."""
    federation.configure(with_changes(config, {**changes, "out": out}))
    return config.model_copy(update={"out": federation.coordinator / out})


def trained(federation: Loopback, config: RunConfig, out: str, **changes: Any) -> RunConfig:
    """Train over the deployed sites."""
    run = configured(federation, config, out, **changes)
    assert federation.start_training().wait() == 0, federation.log("train")
    return run


def same_scores(found: RunConfig, expected: RunConfig) -> None:
    views = np.random.default_rng(0).standard_normal((50, 1, N_FEATURES))
    models = (LinearModel.load(each.out / MODEL_FILE) for each in (found, expected))
    # Another process has other numbers of threads: for large matrices, the last bits may differ.
    np.testing.assert_allclose(*(each.scores(views) for each in models), rtol=0, atol=1e-12)


def left_out(run: RunConfig) -> dict[str, str]:
    """Return why sites are not in a run's model."""
    found: dict[str, str] = json.loads((run.out / "metrics.json").read_text())["data"]["left_out"]
    return found


def test_the_svm_is_that_of_the_in_process_run(federation, config, tmp_path):
    here = config.model_copy(update={"out": tmp_path / "here"})
    simulate(here)
    there = configured(federation, config, "svm")
    federation.start_training()
    federation.wait_for_round("svm", "join")
    # What shows a training may be stopped: started again, it shows the same one.
    federation.kill("train")
    assert federation.start_training().wait() == 0, federation.log("train")
    assert re.findall(r"(started|following) run (\d+)", federation.log("train")) == [
        ("started", run := federation.log("train").split()[2]),
        ("following", run),
    ]
    asked = [[entry["question"] for entry in rounds(each.out)] for each in (there, here)]
    assert asked[0] == asked[1]
    assert "hinge" in asked[0]
    same_scores(there, here)
    # What a site's log says of its messages is what the coordinator got of them.
    for name in federation.sites:
        *lines, last = lines_of(Operator.read(federation.site_file(name)))
        assert [re.findall(r"round (\d+)  (\w+)", line)[0] for line in lines] == [
            (str(number), question) for number, question in enumerate(asked[0], 1)
        ]
        assert last.startswith(f"verified: {len(lines)} messages")


def test_statistics_are_those_of_the_in_process_run(federation, config, tmp_path):
    here = with_changes(config, {"method": "statistics", "out": tmp_path / "here"})
    run = trained(federation, config, "statistics", method="statistics")
    found, expected = json.loads((run.out / STATISTICS_FILE).read_text()), simulate(here)
    assert found == expected


def test_what_a_site_forbids_or_cannot_read_is_refused_without_a_path(federation, config, tmp_path):
    """The run goes on with the others, and its model is exactly theirs."""
    broken, strict = federation.sites[1], federation.sites[2]
    table = config.sites / broken / METADATA_FILE
    secrets = {cell for row in table.read_text().splitlines()[1:] for cell in row.split(",")[:2]}
    table.rename(tmp_path / METADATA_FILE)
    set_keys(federation.site_file(strict), {"methods": ["private"]})
    try:
        run = trained(federation, config, "refused", **{**QUICK, "quorum": 1})
    finally:
        (tmp_path / METADATA_FILE).rename(table)
        set_keys(federation.site_file(strict), {"methods": ["svm", "private"]})
    reasons = " ".join(left_out(run).values())
    assert f"({strict}) refused: {Reason.METHOD}" in reasons
    assert f"({broken}) refused: {Reason.DATA}" in reasons
    others = tmp_path / "others"
    others.mkdir()
    for name in {*federation.sites} - {broken, strict}:
        (others / name).symlink_to(config.sites / name)
    here = with_changes(config, {**QUICK, "quorum": 1, "expected": 1, "sites": others})
    here = here.model_copy(update={"out": tmp_path / "here"})
    simulate(here)
    same_scores(run, here)
    # Nor is a name of an image, a lesion or a folder anywhere at the coordinator.
    secrets |= {str(config.sites), str(federation.folder / broken), str(federation.folder / strict)}
    for file in [
        *federation.coordinator.rglob("*"),
        federation.folder / "logs" / "coordinator.log",
    ]:
        if file.is_file() and "run-config" not in file.name and "apps" not in file.parts:
            content = file.read_bytes()
            assert not [s for s in secrets if s.encode() in content], file


def test_a_status_tells_who_is_there_and_what_was_refused(federation):
    now = datetime.now(UTC)
    status = look(federation.coordinator, now)
    assert status.notices == []
    values = status.as_json()
    names = dict.fromkeys(federation.sites, "online")
    assert values["sites"] == {"connected": SITES, "by_name": names}
    assert (values["run"]["folder"], values["run"]["state"]) == (
        str(federation.coordinator / "refused"),
        "finished",
    )
    assert len(values["run"]["members"]) == 1
    first, _, strict = (look(federation.folder / name, now) for name in federation.sites)
    assert first.notices == []
    assert strict.as_json()["log"]["refused_today"] == {Reason.METHOD: 1}
    assert strict.level == Level.WARNING


def test_a_site_that_is_killed_is_missed_within_the_timeout(federation, config):
    lost = federation.sites[1]
    run = configured(federation, config, "lost", **{**QUICK, "timeout": 30})
    training = federation.start_training()
    federation.wait_for_round("lost", "join")
    federation.kill(lost)
    try:
        assert training.wait() == 0, federation.log("train")
    finally:
        federation.start_node(lost)  # the next test needs all
    # Where the machine is slow, the server misses the node's heartbeats first.
    assert left_out(run) in [
        {lost: why} for why in ("gave no answer within 30 s", "is no longer connected")
    ]
    # Back again, it joins the sums of those that were there.
    federation.wait_for_nodes(federation.sites)
    on = trained(federation, config, "joined", **{**QUICK, "parent": "lost"})
    here = with_changes(config, {**QUICK, "out": run.out.parent / "all-here"})
    simulate(here)
    same_scores(on, here)


def test_the_hospitals_counts_decide_whether_a_model_replaces_another(federation, config):
    """The model in use is that of the test before."""
    gate = {"parent": "joined", "gate": True, "gate_least": 5, "penalty": 1e9}
    worse = configured(federation, config, "worse", **{**QUICK, "timeout": 300, **gate})
    assert federation.start_training().wait() == REFUSED, federation.log("train")
    found = json.loads((worse.out / "metrics.json").read_text())["gate"]
    assert {row["group"] for row in found["rows"]} == {ALL, *federation.sites}
    old = federation.coordinator / "joined" / MODEL_FILE
    assert found["old"] == sha256(old.read_bytes()).hexdigest()


def test_a_killed_coordinator_goes_on_and_no_budget_is_spent_twice(federation, config):
    """The site that was lost before is in it again."""
    private = {"method": "private", "epsilon": 3, "steps": 2, "components": 16}
    run = configured(federation, config, "private", **private)
    federation.start_training()
    federation.wait_for_round("private", "gradient")
    federation.kill("train")
    federation.kill(operations.COORDINATOR)
    federation.start_server()
    assert federation.start_training().wait() == 0, federation.log("train")
    assert left_out(run) == {}
    asked = [entry["question"] for entry in rounds(run.out)]
    # The first run's overview and gradients are not asked for again.
    assert asked.count("overview") == 1
    assert asked.count("gradient") <= 3
    assert asked.count("join") == 2
    for name in federation.sites:
        operator = Operator.read(federation.site_file(name))
        account = Ledger(operator.state / "ledger", operator.seals).account()
        assert [entry.what for entry in account.entries] == ["overview", "training"]
        assert account.spent == pytest.approx(3, abs=0.01)
        answered = [line for line in lines_of(operator) if "  gradient  " in line]
        assert len(answered) in (2, 3)
        assert all(f"epsilon {account.spent:.4g} spent" in line for line in answered)


EVIL_APP = """
import json
from pathlib import Path
from flwr.app import Message
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from common.wire.messages import pack, unpack_values

server = ServerApp()
evil = ClientApp()

@evil.query()
def leak(message, context):
    Path(context.node_config["site"]).with_name("stolen").touch()
    return Message(pack({}, {"stolen": str(context.node_config)}), reply_to=message)

@server.main()
def main(grid, context):
    messages = [Message(pack({}, {"question": "x"}), n, "query") for n in grid.get_node_ids()]
    replies = grid.send_and_receive(messages, timeout=60)
    found = [dict(unpack_values(reply.content)) for reply in replies]
    Path(context.run_config["result"]).write_text(json.dumps(found))
"""

EVIL_PROJECT = """
[project]
name = "evil"
version = "1.0.0"
license = "Apache-2.0"
[tool.flwr.app]
publisher = "evil"
[tool.flwr.app.components]
serverapp = "evil:server"
clientapp = "evil:evil"
[tool.flwr.app.config]
result = ""
"""


def test_a_site_runs_its_own_program_whatever_app_the_coordinator_sends(federation, tmp_path):
    project = tmp_path / "evil"
    project.mkdir()
    (project / "evil.py").write_text(EVIL_APP)
    (project / "pyproject.toml").write_text(EVIL_PROJECT)
    environment = flwr_environment(federation.coordinator / "flwr")
    settings = f"result='{tmp_path / 'result'}'"
    command = ["run", str(project), operations.COORDINATOR, "--stream", "--run-config", settings]
    run = flwr(environment, *command)
    assert (tmp_path / "result").exists(), run.stdout
    replies = json.loads((tmp_path / "result").read_text())
    assert len(replies) == SITES
    # Its own program knows no such setting.
    assert all(reply["refused"] == Reason.SETTINGS for reply in replies)
    assert not [*federation.folder.rglob("stolen")]


def test_a_node_gets_a_new_key_while_the_server_runs(federation, config):
    """Both keys hold until the old one is unregistered, which then is worth nothing."""
    name = federation.sites[0]
    folder, nodes = federation.folder / name, federation.coordinator / operations.NODES
    federation.hand_in_key(public_key(folder, NEXT), f"{name}-next")
    federation.at_coordinator("register")
    federation.kill(name)
    old = (folder / NODE_KEY).rename(folder / "old")
    (folder / NEXT).rename(folder / NODE_KEY)
    federation.start_node(name)
    federation.at_coordinator("unregister", name)
    assert not [*nodes.glob(f"{name}.*")]
    assert trained(federation, config, "renewed", **{**QUICK, "quorum": SITES}).out.exists()
    said = refusal(
        folder,
        Operator.read(federation.site_file(name)).superlink,
        folder / "log",
        auth_supernode_private_key=old,
    )
    assert "Exit Code: 305" in said


def test_nodes_wait_for_a_server_that_answers_nobody(federation):
    """First what they ask is not answered for 30 s, then TLS is not agreed on for as long."""
    before = {name: len(federation.log(name)) for name in federation.sites}
    federation.freeze(operations.COORDINATOR, 70)
    again = "Connection successful"
    federation.wait(
        lambda: all(again in federation.log(name)[n:] for name, n in before.items()),
        "all nodes have reached the server again",
    )


def refusal(folder: Path, superlink: str, log: Path, **changed: Path) -> str:
    """Start a node whose certificate or key is not right; return what it says before it ends."""
    [port] = free_ports(1)
    options: dict[str, object] = {
        "superlink": superlink,
        "root-certificates": folder / "ca.crt",
        "auth-supernode-private-key": folder / "node",
        "port": port,
        **{name.replace("_", "-"): path for name, path in changed.items()},
    }
    command = [str(Path(sys.executable).with_name("flower-supernode"))]
    for name, value in options.items():
        command += [f"--{name}", str(value)]
    environment = flwr_environment(log.parent / "flwr")
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, env=environment, stdout=file, stderr=file, start_new_session=True
        )
    try:
        assert process.wait(timeout=120) != 0
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # its helper notices later that it is alone
    return log.read_text()


def test_a_node_whose_key_is_not_registered_is_refused(federation, tmp_path):
    folder = federation.folder / federation.sites[0]
    superlink = Operator.read(federation.site_file(federation.sites[0])).superlink
    public_key(tmp_path)
    key = {"auth_supernode_private_key": tmp_path / "node"}
    said = refusal(folder, superlink, tmp_path / "log", **key)
    assert "Exit Code: 305" in said
    assert "handshake error" not in said


def test_a_server_of_another_authority_is_refused(federation, tmp_path):
    folder = federation.folder / federation.sites[0]
    superlink = Operator.read(federation.site_file(federation.sites[0])).superlink
    make_authority(tmp_path / "ca.crt", tmp_path / "ca.key")
    authority = {"root_certificates": tmp_path / "ca.crt"}
    said = refusal(folder, superlink, tmp_path / "log", **authority)
    assert "SSL/TLS handshake error" in said


def test_an_expired_certificate_is_refused(federation, tmp_path):
    folder = federation.folder / federation.sites[0]
    authority = tmp_path / "ca.crt", tmp_path / "ca.key"
    make_authority(*authority)
    make_server(tmp_path / "server.crt", tmp_path / "server.key", authority, ["127.0.0.1"], -1)
    [port] = free_ports(1)
    (tmp_path / operations.COORDINATOR_FILE).write_text(f"port = {port}\n")
    server = subprocess.Popen(
        operations.superlink_command(tmp_path), env=flwr_environment(tmp_path / "home")
    )
    try:
        while server.poll() is None and not answers(port):
            time.sleep(0.2)
        paths = {"root_certificates": authority[0]}
        said = refusal(folder, f"127.0.0.1:{port}", tmp_path / "log", **paths)
    finally:
        server.kill()
        server.wait()
    assert "SSL/TLS handshake error" in said


def answers(port: int) -> bool:
    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    return False
