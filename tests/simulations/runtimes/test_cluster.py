"""``flwr run`` over a Ray cluster of two hosts gives the model of the in-process run."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

from common.models.linear import LinearModel
from server.run.folder import MODEL_FILE
from simulations.runtimes.experiment import rounds, simulate
from simulations.runtimes.flower_run import end_processes
from simulations.runtimes.network import ip
from tests.simulations.runtimes.test_runtimes import FLWR_RUN, ROOT
from tests.sites import N_FEATURES, make_quick_sites, with_changes
from tests.watch import processes_of

HEAD, OTHER, PORT = "10.213.78.1", "10.213.78.2", 26379
ADDRESS = f"{HEAD}:{PORT}"
RAY = Path(sysconfig.get_path("scripts")) / "ray"
# Ray's public list of actors asks its dashboard, which is not there.
ACTORS = """
import ray
ray.init(log_to_driver=False)
addresses = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes()}
actors = ray._private.state.actors().values()
print(*sorted({addresses[actor["Address"]["NodeID"]] for actor in actors}))
"""


@pytest.fixture
def hosts() -> Iterator[dict[str, str]]:
    """Connect two network namespaces by a cable; yield their names by address."""
    prefix = f"fedderm-ray-{time.time_ns() % 10**6}"
    spaces = {HEAD: f"{prefix}-head", OTHER: f"{prefix}-other"}
    if not shutil.which("ip"):
        pytest.skip("no command `ip` to make network namespaces with")
    try:
        try:
            for space in spaces.values():
                ip("netns", "add", space)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no network namespaces can be made here: {error.stderr.strip()}")
        first, second = spaces.values()
        ends = ("net0", "netns", first, "type", "veth", "peer", "name", "net0", "netns", second)
        ip("link", "add", *ends)
        for address, space in spaces.items():
            ip("-n", space, "address", "add", f"{address}/24", "dev", "net0")
            for device in ("lo", "net0"):
                ip("-n", space, "link", "set", device, "up")
        yield spaces
    finally:
        for space in spaces.values():
            subprocess.run(["ip", "netns", "delete", space], capture_output=True, check=False)


@pytest.fixture
def cluster(hosts: dict[str, str], tmp_path: Path) -> Iterator[dict[str, str]]:
    """Start Ray at both hosts as docs/scale.md says; yield the environment for a run."""
    token = tmp_path / "token"
    token.write_text("0123456789abcdef" * 4)
    with tempfile.TemporaryDirectory(prefix="ray-") as folder:
        environment = {
            **os.environ,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "http_proxy": "http://127.0.0.1:9",
            "no_proxy": f"127.0.0.1,localhost,{HEAD},{OTHER}",
        }
        starting = {**environment, "RAY_TMPDIR": folder, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1"}
        few = ["--num-cpus=1", "--object-store-memory=100000000"]
        try:
            head = ["--head", f"--port={PORT}", "--include-dashboard=false"]
            for address, role in ((HEAD, head), (OTHER, [f"--address={ADDRESS}"])):
                start = [str(RAY), "start", *role, f"--node-ip-address={address}", *few]
                at_host(hosts[address], start, starting)
            yield {**environment, "RAY_ADDRESS": ADDRESS}
        finally:
            end_processes(f"RAY_TMPDIR={folder}")


def at_host(space: str, command: list[str], environment: Mapping[str, str]) -> str:
    """Run a command at a host that must not fail; return its standard output."""
    run = tried_at_host(space, command, environment)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


def tried_at_host(
    space: str, command: list[str], environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["ip", "netns", "exec", space, *command],
        env=environment,
        capture_output=True,
        text=True,
        start_new_session=True,  # groups are ended as a whole
        check=False,
    )


def test_two_hosts_train_the_model_of_the_in_process_run(
    hosts: dict[str, str], cluster: dict[str, str], synthetic_folder: Path, tmp_path: Path
) -> None:
    base = make_quick_sites(synthetic_folder, tmp_path / "sites", 4)
    base = with_changes(base, {"expected": 4, "quorum": 4, "c": (1e-4,)})
    here, there = (base.model_copy(update={"out": tmp_path / n}) for n in ("here", "there"))
    simulate(here)
    run = [sys.executable, "-c", FLWR_RUN, str(ROOT), json.dumps(there.flat()), "4"]
    at_host(hosts[HEAD], [*run, str(tmp_path / "home")], cluster)
    asked = [[entry["question"] for entry in rounds(each.out)] for each in (here, there)]
    assert asked[0] == asked[1]
    views = np.random.default_rng(0).standard_normal((50, 1, N_FEATURES))
    scores = [LinearModel.load(each.out / MODEL_FILE).scores(views) for each in (here, there)]
    np.testing.assert_allclose(*scores, rtol=0, atol=1e-12)
    actors = [sys.executable, "-c", ACTORS]
    assert at_host(hosts[HEAD], actors, cluster).split() == [HEAD, OTHER]
    # Whoever reaches Ray's ports without the token has no part in the cluster.
    strange = {name: value for name, value in cluster.items() if "RAY_AUTH" not in name}
    assert "Unauthenticated" in tried_at_host(hosts[OTHER], actors, strange).stderr
    assert processes_of(tmp_path / "home") == []
