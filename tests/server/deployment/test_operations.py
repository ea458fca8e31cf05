"""The folders of a federation, and what a hospital's check finds in one that is not ready."""

import csv
import os
import re
import shutil
import socket
import ssl
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner

from client.egress.log import add as add_to_log
from client.egress.questions import Question
from client.operator.cli import identity_line, node_command
from client.operator.cli import run as run_node
from client.operator.node_key import public_key
from client.operator.readiness import Finding, check
from client.operator.site_rules import Operator
from common.errors import ConfigError, DataError
from common.wire.certificates import announcement
from server.deployment import operations
from server.deployment.pki import make_server
from simulations.cli.main import app
from simulations.runtimes.loopback import set_keys

SITES = ["north", "south", "east"]
runner = CliRunner()


@pytest.fixture
def federation(tmp_path: Path) -> Path:
    """Make the folders of three sites."""
    operations.init(tmp_path / "all", SITES, ["127.0.0.1", "fed.example.org"])
    return tmp_path / "all"


def test_every_folder_has_what_it_needs_and_nobody_else_reads_it(federation):
    for site in SITES:
        folder = federation / site
        operator = Operator.read(folder / "site.toml")
        assert (operator.name, operator.superlink) == (site, "127.0.0.1:9092")
        assert (operator.rules.least_sites, operator.rules.least_count) == (3, 5)
        assert folder.stat().st_mode & 0o077 == 0
        assert {path.name for path in folder.iterdir()} == {"ca.crt", "run.sh", "site.toml"}
    assert (federation / "coordinator").stat().st_mode & 0o077 == 0
    config = operations.Coordinator.read(federation / "coordinator")
    assert config.run_config(federation / "coordinator")["secure"] is True
    secrets = [p for p in federation.rglob("*") if p.is_file() and b"PRIVATE" in p.read_bytes()]
    assert {path.name for path in secrets} == {"ca.key", "server.key"}
    assert all(path.stat().st_mode & 0o077 == 0 for path in secrets)


def test_nothing_is_written_over(federation):
    before = {path: path.read_bytes() for path in federation.rglob("*") if path.is_file()}
    with pytest.raises(DataError, match="is not an empty folder"):
        operations.init(federation, SITES, ["127.0.0.1"])
    assert all(path.read_bytes() == content for path, content in before.items())


@pytest.mark.parametrize(
    ("sites", "hosts", "reason"),
    [
        ([], ["h"], "at least one --site"),
        (["a"], [], "for them to reach, one --host"),
        (["a", "b", "a"], ["h"], "the site a is named twice"),
        (["../a"], ["h"], "'../a' is no name of a site"),
        (["coordinator"], ["h"], "'coordinator' is no name of a site"),
        (["a", "b"], ["h"], "2 of at least 3 sites are named"),
        (["a", "b", "c\n"], ["h"], "is no name of a site"),
        (["a", "b", "c"], ["h", "-rf"], "'-rf' is neither a host's name nor an address"),
        (["a", "b", "c"], ["h\nx"], "is neither a host's name nor an address"),
        (["a", "b", "c"], ["fe80::1%\n"], "is neither a host's name nor an address"),
    ],
)
def test_impossible_federations_are_named(tmp_path, sites, hosts, reason):
    with pytest.raises(ConfigError, match=reason):
        operations.init(tmp_path / "all", sites, hosts)
    assert not (tmp_path / "all").exists()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("port = 0", "'port' is 0"),
        ("ports = 1", "unknown key 'ports' with value 1; did you mean 'port'?"),
        ("port =", "is no TOML file"),
        ('[run]\nmethod = "magic"', "'method' is 'magic'"),
    ],
)
def test_a_wrong_coordinators_file_is_one_line(federation, text, reason):
    (federation / "coordinator" / "coordinator.toml").write_text(text)
    with pytest.raises(ConfigError, match=reason) as refusal:
        operations.Coordinator.read(federation / "coordinator")
    assert "\n" not in str(refusal.value)


def test_a_node_starts_only_where_all_of_its_log_is_as_it_was_written(
    federation, monkeypatch, capsys
):
    monkeypatch.setattr("client.egress.log_files.SIZE", 1)  # two messages a file
    started = []
    monkeypatch.setattr(os, "execve", lambda *command: started.append(command))
    public_key(federation / "north")
    set_keys(federation / "north" / "site.toml", {"seals": "../seals"})
    operator = Operator.read(federation / "north" / "site.toml")
    for _ in range(5):
        add_to_log(operator, Question(1, "5", "join"), {}, 12, ())
    run_node(federation / "north")
    assert "egress log verified: 5 messages, 60 bytes\n" in capsys.readouterr().out
    old = operator.state / "egress-log-000002.jsonl"
    old.write_text(old.read_text().replace("join", "none"))
    with pytest.raises(DataError, match=f"{old} was changed at or before line 4"):
        run_node(federation / "north")
    old.unlink()  # moved away
    run_node(federation / "north")
    assert len(started) == 2


def test_a_node_has_its_own_programs_as_its_only_commands(federation):
    with pytest.raises(ConfigError, match="north/node is missing; make it by `fedderm site key"):
        node_command(federation / "north")
    public_key(federation / "north")
    command, environment = node_command(federation / "north")
    commands = Path(environment["PATH"])
    assert commands == federation / "north" / "state" / "bin"
    started = {path.name: path.read_text() for path in commands.iterdir()}
    assert "-m client.operator.flower_process" in started["flwr-clientapp"]
    for other in ("flwr-agentapp", "flwr-serverapp", "flwr-connector", "flwr-model"):
        assert started[other] == '#!/bin/sh\nexit 1 "$@"\n'
    assert not {"--insecure", "--isolation"} & set(command)
    assert command[command.index("--auth-supernode-private-key") + 1].endswith("north/node")


@pytest.fixture
def server(federation: Path) -> Iterator[int]:
    """Answer at a port, with TLS and the time of day."""
    coordinator = federation / "coordinator"
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(coordinator / "server.crt", coordinator / "server.key")
    server = HTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


class Handler(BaseHTTPRequestHandler):
    """Tells the time with every refusal."""

    def do_GET(self) -> None:
        self.send_error(404)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def ready(federation: Path, server: int, synthetic_folder: Path) -> Path:
    """Fill in a hospital's folder as its operator would."""
    folder = federation / "north"
    public_key(folder)
    places = {"superlink": f"127.0.0.1:{server}", "data": str(synthetic_folder)}
    set_keys(folder / "site.toml", {**places, "seals": str(federation.parent / "seals")})
    lines = [identity_line(federation / site) for site in SITES]
    (folder / "peers").write_text("\n".join(lines))
    return folder


def findings(folder: Path) -> dict[str, Finding]:
    return {found.what: found for found in check(folder, Operator.read(folder / "site.toml"))}


def test_a_hospital_that_is_ready_has_no_problem(ready):
    found = findings(ready)
    assert [each for each in found.values() if not each.good] == []
    assert found["data"].says.startswith("120 images of ")
    assert "verified: 0 messages" in found["log"].says
    assert "its certificate is valid for 39" in found["server"].says
    result = runner.invoke(app, ["site", "check", str(ready)])
    assert result.exit_code == 0
    assert len(result.output.splitlines()) == len(found) == 9


def test_a_hospital_without_a_diagnosis_may_take_part(ready, synthetic_folder, tmp_path):
    folder = tmp_path / "unlabelled"
    shutil.copytree(synthetic_folder, folder)
    [table] = folder.glob("*_metadata.csv")
    with table.open(newline="") as lines:
        rows = [{**row, "dx": ""} for row in csv.DictReader(lines)]
    with table.open("w", newline="") as lines:
        writer = csv.DictWriter(lines, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    set_keys(ready / "site.toml", {"data": str(folder)})
    found = findings(ready)["data"]
    assert found.good
    assert found.says.startswith("120 images, none with a diagnosis")


def no_data(folder: Path) -> None:
    set_keys(folder / "site.toml", {"data": "nowhere"})


def no_key(folder: Path) -> None:
    (folder / "node").unlink()


def open_key(folder: Path) -> None:
    os.chmod(folder / "node", 0o644)


def spoiled_key(folder: Path) -> None:
    (folder / "node").write_text("no key")


def no_peer(folder: Path) -> None:
    (folder / "peers").write_text(identity_line(folder.parent / "south"))


def nobody_there(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    set_keys(folder / "site.toml", {"superlink": f"127.0.0.1:{port}"})


def another_authority(folder: Path) -> None:
    operations.init(folder / "other", ["a", "b", "c"], ["127.0.0.1"])
    (folder / "ca.crt").write_bytes((folder / "other" / "coordinator" / "ca.crt").read_bytes())


def too_few_peers(folder: Path) -> None:
    lines = (folder / "peers").read_text().splitlines()
    (folder / "peers").write_text("\n".join(lines[:2]))


def a_peer_twice(folder: Path) -> None:
    line = identity_line(folder)
    (folder / "peers").write_text(f"{line}\n{line.replace(line[-1], '0')}")


def no_method(folder: Path) -> None:
    set_keys(folder / "site.toml", {"methods": []})


def nothing_to_spend(folder: Path) -> None:
    set_keys(folder / "site.toml", {"methods": ["private"]})


def rare_class(folder: Path) -> None:
    file = folder / "site.toml"
    set_keys(file, {"least_lesions": 40, "least_sites": 0})
    file.write_text(file.read_text().replace("peers =", "# peers ="))


def other_pins(folder: Path) -> None:
    (folder / "pins").write_text("code 00\nweights 00\nnetwork 00\n")
    with (folder / "site.toml").open("a") as file:
        file.write('pins = "pins"\n')


def seals_in_state(folder: Path) -> None:
    set_keys(folder / "site.toml", {"seals": "state/seals"})


def edited_log(folder: Path) -> None:
    (folder / "state").mkdir(exist_ok=True)
    (folder / "state" / "egress-log.jsonl").write_text('{"run": "1"}\n')


def clock_off(folder: Path) -> None:
    """Nothing in the folder."""


@pytest.mark.parametrize(
    ("spoil", "what", "says"),
    [
        (no_data, "data", "nowhere cannot be listed"),
        (no_key, "keys", "node is missing; make it by `fedderm site key "),
        (open_key, "keys", "others may read .*; `chmod 600"),
        (spoiled_key, "keys", "is no key .*; remove it, and make one by"),
        (no_peer, "peers", "lacks this site's line: north\t[0-9a-f]{64}"),
        (too_few_peers, "peers", "2 sites are trusted: .*; a secure sum is over 3 or more"),
        (a_peer_twice, "peers", "a site occurs twice"),
        (no_method, "rules", "no method is allowed"),
        (nothing_to_spend, "rules", "only private methods are allowed, and 'epsilon' is 0"),
        (rare_class, "rules", r"a class has \d+ lesions, 'least_lesions' is 40: without"),
        (other_pins, "rules", "the code of this site, .*, is not what its operator pinned"),
        (nobody_there, "server", "cannot be reached .*may this machine reach port"),
        (another_authority, "server", "it is not the server that this site's ca.crt is for"),
        (seals_in_state, "disk", "'seals' lies in 'state'; put it where no backup restores both"),
        (edited_log, "log", "has no seal"),
        (clock_off, "clock", r"1\d\d s ahead of the server's; synchronise it"),
    ],
)
def test_what_is_not_is_named_with_what_to_do(ready, monkeypatch, spoil, what, says):
    spoil(ready)
    if spoil is clock_off:

        class Ahead(datetime):
            @classmethod
            def now(cls, tz=None):
                return datetime.now(tz) + timedelta(seconds=150)

        monkeypatch.setattr("client.operator.clock.datetime", Ahead)
    found = findings(ready)[what]
    assert not found.good
    assert re.search(says, found.says), found.says
    assert "\n" not in str(found)


def test_the_end_of_a_certificate_is_announced(ready, federation):
    coordinator = federation / "coordinator"
    for name in ("server.crt", "server.key"):
        (coordinator / name).unlink()
    make_server(
        *(coordinator / name for name in ("server.crt", "server.key")),
        (coordinator / "ca.crt", coordinator / "ca.key"),
        ["127.0.0.1"],
        days=9,
    )
    assert "server.crt expires in 9 days; " in str(announcement(coordinator / "server.crt"))
    assert announcement(coordinator / "ca.crt") is None
