"""Four hospitals dealt from one data set: as a federation of processes, and as a run in process."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from client.operator.site_rules import Operator
from common.config.run import RunConfig
from common.data.dataset import Dataset
from common.data.splits import site_splits
from common.errors import FedDermError
from common.json_types import Json
from server.deployment.operations import COORDINATOR
from server.run.folder import MODEL_FILE, RUN
from simulations.data.agreed_task import agreed, for_task
from simulations.data.partition import partition, write_sites
from simulations.runtimes.loopback import FEDDERM, TRAINING, Loopback
from simulations.runtimes.network import Network

SITES = 4

QUICK: Mapping[str, Any] = {
    # Few messages, and features within seconds.
    "head": "lda",
    "views": 0,
    "predictions": 1,
    "size": 64,
    "components": 64,
    "min_active": 1,
    "secure": True,
    "expected": SITES,
    "quorum": SITES,
    "out": "run",
}
"""An exact run over all hospitals."""

_SERVICE = ("sh", "-c", 'until "$@"; do sleep 10; done', "service")
"""Starts a node again that ends by a failure, as its service does (`fedderm site service`).

The server takes a node that was cut off without a word back only once it has missed it.
"""

PATIENCE = 900.0
"""Seconds that a step may take on a busy machine before the federation is said to hang."""


def deal(data: Path, out: Path, config: RunConfig) -> tuple[RunConfig, dict[str, Path]]:
    """Deal lesions to hospitals; return the configuration for their task, and their folders."""
    dataset = Dataset.open(data)
    config = config.model_copy(update=agreed(config, dataset.task))
    dataset = for_task(dataset, config.task)
    splits = site_splits(dataset, config.test_fraction, config.folds, config.seed)
    dataset = dataset.with_splits(splits)
    parts = partition(dataset, "iid", SITES, 1.0, config.seed)
    write_sites(dataset, parts, out, link=True)
    return config, {name: out / name for name in parts}


def host_names() -> list[str]:
    """Return the names of the hosts of such a federation."""
    return [COORDINATOR, *(f"site_{number:02}" for number in range(SITES))]


@dataclass
class Deployment:
    """Hospitals and a coordinator on hosts of their own, and the model that they must make.

    Attributes
    ----------
    federation : their folders and processes.
    network : their hosts.
    expected : the model of the same run in one process, in which nothing goes wrong.
    """

    federation: Loopback
    network: Network
    expected: bytes

    def folders(self) -> dict[str, Path]:
        """Return what each host writes to."""
        states = {name: self._operator(name).state for name in self.federation.sites}
        return {COORDINATOR: self.federation.coordinator, **states}

    def names(self) -> set[str]:
        """Return the names of all images and lesions."""
        data = (Dataset.open(self._operator(name).data) for name in self.federation.sites)
        images = [image for dataset in data for image in dataset.images]
        return {name for image in images for name in (image.image_id, image.lesion_id)}

    def _operator(self, name: str) -> Operator:
        return Operator.read(self.federation.site_file(name))

    def settle(self, name: str, before: Sequence[str] = ()) -> None:
        """Let a host start its next commands there, with something before them."""
        # Sums of one thread are the same, bit for bit, in each process.
        one = ["env", "OMP_NUM_THREADS=1"]
        again = () if name == COORDINATOR else _SERVICE
        self.federation.hosts[name] = [*self.network.command(name), *again, *one, *before]

    def cut_power(self, host: str) -> None:
        """End all processes of a host at once."""
        if host == COORDINATOR:
            self.federation.kill(TRAINING)
        self.federation.kill(host)
        for process in self.network.processes(host):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)

    def restart_node(self, name: str, before: Sequence[str] = ()) -> None:
        """End a site's node and start it again, with something before its command."""
        self.cut_power(name)
        self.settle(name, before)
        self.federation.start_node(name)


def deploy(
    data: Path,
    out: Path,
    network: Network,
    rules: Mapping[str, Json] | None = None,
    settings: Mapping[str, Json] = QUICK,
) -> Deployment:
    """Make the folders of a federation on hosts, and train its model in process first.

    Parameters
    ----------
    out : new folder for everything.
    network : has the hosts of :func:`host_names`.
    rules : keys of every site's file that differ from the usual.
    settings : of the run.
    """
    config, folders = deal(data, out / "data", RunConfig.read(settings))
    cache = RunConfig().cache.expanduser()  # a second start finds the features
    expected = _alone(out / "data", out / "alone", {**settings, "out": None, "cache": cache})
    places: dict[str, Json] = {"cache": str(cache), **(rules or {})}
    address = network.address(COORDINATOR)
    federation = Loopback(out / "federation", folders, config, places, address)
    federation.patience = PATIENCE
    deployment = Deployment(federation, network, expected)
    for name in host_names():
        deployment.settle(name)
    return deployment


def _alone(sites: Path, out: Path, settings: Mapping[str, Any]) -> bytes:
    """Train over the same sites in one process; return the model's file."""
    words = [f"{key}={value}" for key, value in settings.items() if value is not None]
    command = ["simulate", str(sites), "--scheme", "folders", "--out", str(out), *words]
    done = subprocess.run(
        ["env", "OMP_NUM_THREADS=1", sys.executable, "-c", FEDDERM, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise FedDermError(f"the run in process failed: {done.stdout.strip().splitlines()[-1]}")
    return (out / RUN / MODEL_FILE).read_bytes()
