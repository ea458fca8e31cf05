"""Runs over many sites on one machine, in one process."""

import json
from pathlib import Path
from typing import Any, Final, Literal

from flwr.app import UserConfig

import client.app
import server.app
from client.site import site_folders
from common.config import RunConfig
from common.dataset import Dataset
from common.splits import site_splits
from server.run import METRICS_FILE, ROUNDS_FILE
from simulations.grid import run_in_process
from simulations.partition import Scheme, partition, write_sites

POOLED: Final = "pooled"


def with_splits(data: Path, config: RunConfig) -> Dataset:
    """Open pooled data with its test set and folds, which sites cut from it inherit."""
    dataset = Dataset.open(data)
    return dataset.with_splits(
        site_splits(dataset, config.test_fraction, config.folds, config.seed)
    )


def make_sites(
    dataset: Dataset,
    out: Path,
    scheme: Scheme | Literal["pooled"],
    sites: int | None,
    alpha: float,
    seed: int,
) -> None:
    """Write one folder of links per site; ``pooled`` puts everything at one site."""
    if scheme == POOLED:
        parts = partition(dataset, "iid", 1, alpha, seed)
        parts = {POOLED: next(iter(parts.values()))}
    else:
        parts = partition(dataset, scheme, sites, alpha, seed)
    write_sites(dataset, parts, out, link=True)


def simulate(config: RunConfig) -> dict[str, Any]:
    """Run both apps in this process over the folders in ``config.sites``.

    Returns
    -------
    The run's metrics, as written into its folder.

    Raises
    ------
    FedDermError
        What the coordinator raised.
    """
    assert config.sites is not None
    assert config.out is not None
    nodes: list[UserConfig] = [{"partition-id": i} for i in range(len(site_folders(config.sites)))]
    run_in_process(server.app.app, client.app.app, nodes, config.flat())
    metrics: dict[str, Any] = json.loads((config.out / METRICS_FILE).read_text())
    return metrics


def rounds(run: Path) -> list[dict[str, Any]]:
    """Return the log of a run, one entry a round."""
    lines = (run / ROUNDS_FILE).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]
