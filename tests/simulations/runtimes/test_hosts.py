"""A server and sites on hosts with addresses of their own: network namespaces of Linux."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from client.open_site import site_folders
from client.operator.site_rules import Operator
from common.errors import FedDermError
from server.deployment import operations
from simulations.runtimes.experiment import rounds
from simulations.runtimes.loopback import Loopback
from simulations.runtimes.network import Network
from tests.sites import make_quick_sites, with_changes
from tests.watch import HIDING, Watch

SITES = 3
HOSTS = [operations.COORDINATOR, *(f"site_{number:02}" for number in range(SITES))]


@pytest.fixture
def network() -> Iterator[Network]:
    """Connect a host for the server and each site; skip where none can be made."""
    with ExitStack() as stack:
        try:
            network = stack.enter_context(Network(HOSTS))
        except FedDermError as error:
            pytest.skip(str(error))
        yield network


ASK = """
import ssl, sys, urllib.error, urllib.request
context = ssl._create_unverified_context()
try:
    urllib.request.urlopen(urllib.request.Request(sys.argv[1], data=b""), context=context)
except urllib.error.HTTPError as error:
    print(error.code)
"""


def status_from(host: list[str], url: str) -> str:
    """Ask a server from a host, whoever it is; return its answer's number."""
    command = [*host, sys.executable, "-c", ASK, url]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_a_host_that_is_cut_off_and_comes_back_in_time_stays_in(
    network: Network,
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
    hosts = {name: [*network.command(name), *watches[name].prefix] for name in HOSTS}
    address = network.address(operations.COORDINATOR)
    with Loopback(tmp_path / "all", data, config, rules, address, hosts) as federation:
        federation.start_server()
        for name in federation.sites:
            federation.start_node(name)
        # Sites reach what is for them. Whoever starts runs must be at the coordinator's machine.
        server = Operator.read(federation.site_file("site_00")).superlink
        control = f"https://{server}/v1/control/list-nodes"
        assert status_from(network.command("site_00"), control) == "403"
        assert status_from(network.command("site_00"), f"https://{server}/v1/fleet/x") == "404"
        training = federation.start_training()
        federation.wait_for_round("run", "join")
        network.cut_off("site_01")
        time.sleep(8)
        network.reconnect("site_01")
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
