"""A server and sites on hosts with addresses of their own: network namespaces of Linux."""

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from client.operator.site_rules import Operator
from client.site import site_folders
from server.deployment import operations
from simulations.runtimes.experiment import rounds
from simulations.runtimes.loopback import Loopback
from tests.sites import make_quick_sites, with_changes
from tests.watch import HIDING, Watch

SITES = 3
SERVER = "10.213.77.1"
HOSTS = [operations.COORDINATOR, *(f"site_{number:02}" for number in range(SITES))]


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


@pytest.fixture(scope="module")
def network() -> Iterator[dict[str, str]]:
    """Connect a host for the server and each site by a bridge; yield their names by site."""
    prefix = f"fedderm-{time.time_ns() % 10**6}"
    hub, spaces = f"{prefix}-hub", {name: f"{prefix}-{name}" for name in HOSTS}
    if not shutil.which("ip"):
        pytest.skip("no command `ip` to make network namespaces with")
    try:
        try:
            ip("netns", "add", hub)
            ip("-n", hub, "link", "add", "bridge", "type", "bridge")
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no network namespaces can be made here: {error.stderr.strip()}")
        ip("-n", hub, "link", "set", "bridge", "up")
        for number, (name, space) in enumerate(spaces.items(), 1):
            ip("netns", "add", space)
            ends = ("link", "add", "net0", "netns", space, "type", "veth")
            ip(*ends, "peer", "name", name[:15], "netns", hub)
            ip("-n", hub, "link", "set", name[:15], "master", "bridge", "up")
            ip("-n", space, "address", "add", f"10.213.77.{number}/24", "dev", "net0")
            for device in ("lo", "net0"):
                ip("-n", space, "link", "set", device, "up")
        yield {"hub": hub, **spaces}
    finally:
        for space in [hub, *spaces.values()]:
            subprocess.run(["ip", "netns", "delete", space], capture_output=True, check=False)


ASK = """
import ssl, sys, urllib.error, urllib.request
context = ssl._create_unverified_context()
try:
    urllib.request.urlopen(urllib.request.Request(sys.argv[1], data=b""), context=context)
except urllib.error.HTTPError as error:
    print(error.code)
"""


def status_from(space: str, url: str) -> str:
    """Ask a server from a host, whoever it is; return its answer's number."""
    command = ["ip", "netns", "exec", space, sys.executable, "-c", ASK, url]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_a_host_that_is_cut_off_and_comes_back_in_time_stays_in(
    network: dict[str, str],
    synthetic_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    base = make_quick_sites(synthetic_folder, tmp_path, SITES)
    quick = {"head": "ridge", "expected": SITES, "quorum": SITES, "timeout": 120, "out": "run"}
    config = with_changes(base, quick)
    data = {path.name: path for path in site_folders(base.sites)}
    least = {"least_sites": 0, "least_count": 0, "least_lesions": 0, "min_active": 1}
    rules = {**least, "cache": str(base.cache)}
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    for name in HIDING:
        monkeypatch.delenv(name, raising=False)
    watches = {name: Watch(tmp_path / "watches" / name) for name in HOSTS}
    hosts = {name: ["ip", "netns", "exec", network[name], *watches[name].prefix] for name in HOSTS}
    with Loopback(tmp_path / "all", data, config, rules, SERVER, hosts) as federation:
        federation.start_server()
        for name in federation.sites:
            federation.start_node(name)
        # Sites reach what is for them. Whoever starts runs must be at the coordinator's machine.
        server = Operator.read(federation.site_file("site_00")).superlink
        control = f"https://{server}/v1/control/list-nodes"
        assert status_from(network["site_00"], control) == "403"
        assert status_from(network["site_00"], f"https://{server}/v1/fleet/x") == "404"
        training = federation.start_training()
        federation.wait_for_round("run", "join")
        ip("-n", network["hub"], "link", "set", "site_01", "down")
        time.sleep(8)
        ip("-n", network["hub"], "link", "set", "site_01", "up")
        assert training.wait() == 0, federation.log("train")
    log = rounds(federation.coordinator / "run")
    assert [entry["faults"] for entry in log] == [{}] * len(log)
    assert all(entry["answered"] == federation.sites for entry in log)
    assert list(home.iterdir()) == []
    # As docs/deployment.md says in its table of ports.
    address, port = server.split(":")
    for name in federation.sites:
        assert watches[name].reached() == {f"{address} port {port}"}
    assert watches[operations.COORDINATOR].reached() == {f"0.0.0.0 port {port}"}  # where it listens
