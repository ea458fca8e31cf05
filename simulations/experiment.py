"""Runs over many sites on one machine, and the baselines: everything pooled, each site alone."""

from pathlib import Path

from flwr.app import UserConfig

import client.app
import server.app
from client.site import site_folders
from common.config import RunConfig
from common.dataset import Dataset
from common.splits import site_splits
from simulations.grid import run_in_process
from simulations.partition import Scheme, partition, write_sites

POOLED = "pooled"


def make_sites(
    data: Path, out: Path, scheme: Scheme | None, sites: int | None, alpha: float, config: RunConfig
) -> Path:
    """Write one folder of links per site; all carry the splits of the pooled data.

    Parameters
    ----------
    scheme : who holds what; None puts everything at one site.

    Returns
    -------
    ``out``, for the configuration's ``sites``.
    """
    dataset = Dataset.open(data)
    splits = site_splits(dataset, config.test_fraction, config.folds, config.seed)
    dataset = dataset.with_splits(splits)
    if scheme is None:
        scheme, sites = "iid", 1
    parts = partition(dataset, scheme, sites, alpha, config.seed)
    write_sites(dataset, parts, out, link=True)
    return out


def simulate(config: RunConfig) -> Path:
    """Run the two apps in this process over the folders in ``config.sites``.

    Returns
    -------
    The run folder.

    Raises
    ------
    FedDermError
        What the coordinator raised.
    """
    assert config.sites is not None
    assert config.out is not None
    folders = site_folders(config.sites)
    nodes: list[UserConfig] = [{"partition-id": index} for index in range(len(folders))]
    run_in_process(server.app.app, client.app.app, nodes, config.flat())
    return config.out
