"""Runs over many sites on one machine, in one process."""

import hashlib
import json
from pathlib import Path
from typing import Final, Literal, get_args

import numpy as np
from flwr.app import UserConfig

import client.app
import server.app
from client.open_site import site_folders
from common.config.run import RunConfig
from common.data.dataset import Dataset
from common.data.duplicates import open_joined
from common.data.splits import site_splits
from common.errors import ConfigError, DataError, QuorumError
from common.json_types import JsonObject
from common.methods import METHODS
from common.storage.whole_files import owned, whole_folder, write_atomically
from common.task import Task
from common.text import suggestion
from server.method import server_method
from server.run.folder import ROUNDS_FILE, RUN, model_file, read_metrics
from simulations.data.agreed_task import agreed, for_task, task_of_sites
from simulations.data.partition import Scheme, check_sites, partition, write_site
from simulations.runtimes.in_process import Answer, run_in_process

POOLED: Final = "pooled"
FOLDERS: Final = "folders"
_PARTITION_FILE = "partition.json"


def train(
    config: RunConfig,
    data: Path,
    out: Path,
    scheme: Scheme | Literal["folders", "pooled"],
    sites: int | None = None,
    alpha: float = 1.0,
) -> Path:
    """Partition a data folder into sites and train over them; return the run's folder.

    Parameters
    ----------
    config : the configuration of the run, whose folders are replaced. One pooled site hides nothing
        from itself, so ``secure`` is switched off there.
    data : folder laid out like HAM10000; where ``scheme`` is ``folders``, one with such a folder
        for each site.
    out : new folder for the sites and the run, or that of the same run, which goes on.
    scheme, sites, alpha : as for :func:`simulations.data.partition.partition`.

    Raises
    ------
    ConfigError
        If the scheme is unknown, or its number of sites or skew out of range.
    FedDermError
        If the data or the folder cannot be used, or the training failed.
    """
    _check_scheme(scheme)
    folders = data
    if scheme == POOLED:
        config = config.model_copy(update={"secure": False})
    if scheme == FOLDERS:
        config = _agreed(config, task_of_sites(site_folders(data)))
    else:
        model = METHODS[config.method].model
        pooled = open_joined(data, config.cache) if model else Dataset.open(data)
        config = _agreed(config, pooled.task)
        server_method(config).check(config)  # before anything is written
        folders = out / "sites"
        if model:
            pooled = split(pooled, config)
        make_sites(pooled, folders, scheme, sites, alpha, config.seed)
    # Beside the sites, not around them: the run's folder holds nothing of a patient.
    run = out / RUN
    simulate(config.model_copy(update={"sites": folders.resolve(), "out": run}))
    return run


def _agreed(config: RunConfig, own: Task) -> RunConfig:
    return config.model_copy(update=agreed(config, own))


def _check_scheme(scheme: str) -> None:
    known = (*get_args(Scheme), FOLDERS, POOLED)
    if scheme not in known:
        other = suggestion(str(scheme), known) or f"; known are {', '.join(known)}"
        raise ConfigError(f"unknown scheme {scheme!r}{other}")


def open_for(config: RunConfig, data: Path) -> tuple[RunConfig, Dataset]:
    """Open pooled data for a run; return its configuration for their task, and them with splits."""
    pooled = open_joined(data, config.cache)
    config = _agreed(config, pooled.task)
    server_method(config).check(config)
    return config, split(pooled, config)


def with_splits(data: Path, config: RunConfig) -> Dataset:
    """Open pooled data with its test set and folds, which sites cut from it inherit."""
    return split(open_joined(data, config.cache), config)


def split(pooled: Dataset, config: RunConfig) -> Dataset:
    """Return the images of a run's diagnoses with its test set and folds.

    Lesions that a simulated parent had are where they were: what it trained on is not tested on.
    """
    dataset = for_task(pooled, config.task)
    splits = site_splits(dataset, config.test_fraction, config.folds, config.seed)
    former = _splits_of_parent(config)
    of_parent = [former.get(str(lesion), "") for lesion in dataset.lesions]
    return dataset.with_splits([f or str(s) for f, s in zip(of_parent, splits, strict=True)])


def _splits_of_parent(config: RunConfig) -> dict[str, str]:
    """Return the split of each lesion of the sites that lie beside a simulated parent's run."""
    if config.parent is None:
        return {}
    sites = model_file(config.parent).parent.with_name("sites")
    if not sites.is_dir():
        return {}
    tables = [Dataset.open(folder) for folder in site_folders(sites)]
    return {
        str(lesion): str(split)
        for table in tables
        for lesion, split in zip(table.lesions, table.splits, strict=True)
    }


def make_sites(
    dataset: Dataset,
    out: Path,
    scheme: Scheme | Literal["pooled"],
    sites: int | None,
    alpha: float,
    seed: int,
) -> None:
    """Write one folder of links per site; ``pooled`` puts everything at one site.

    A folder that holds the same partition already is kept, for a run that is started again; one
    that another process is writing is waited for.

    Raises
    ------
    DataError
        If the partition is impossible, or ``out`` holds another one or was changed.
    """
    rows = hashlib.sha256(repr(dataset.images).encode()).hexdigest()
    description = json.dumps([str(dataset.folder.resolve()), rows, scheme, sites, alpha, seed])
    if scheme == POOLED:
        parts = {POOLED: np.arange(len(dataset))}
    else:
        parts = partition(dataset, scheme, sites, alpha, seed)
    with owned(out, wait=True):
        if out.exists():
            kept = out / _PARTITION_FILE
            if not kept.exists() or kept.read_bytes() != description.encode():
                raise DataError(f"{out} holds another partition; name a new folder for the results")
            check_sites(dataset, parts, out)
            return
        with whole_folder(out) as folder:
            for name, indices in parts.items():
                write_site(dataset.select(indices), folder / name, link=True)
            write_atomically(folder / _PARTITION_FILE, description.encode())


def simulate(config: RunConfig, sites_app: Answer = client.app.app) -> JsonObject:
    """Run both apps in this process over the folders in ``config.sites``.

    Parameters
    ----------
    sites_app : answers for the sites.

    Returns
    -------
    The run's metrics, or statistics, as written into its folder.

    Raises
    ------
    QuorumError
        If there are fewer sites than the run needs.
    FedDermError
        What the coordinator raised.
    """
    assert config.sites is not None
    assert config.out is not None
    n_sites = len(site_folders(config.sites))
    needed = max(config.quorum, config.expected)
    if n_sites < needed:  # in a deployment more might connect; here waiting would be in vain
        raise QuorumError(f"{config.sites} has {n_sites} of the {needed} sites that are needed")
    nodes: list[UserConfig] = [{"partition-id": i} for i in range(n_sites)]
    run_in_process(server.app.app, sites_app, nodes, config.flat())
    return read_metrics(config.out)


def rounds(run: Path) -> list[JsonObject]:
    """Return the log of a run, one entry a round."""
    lines = (run / ROUNDS_FILE).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]
