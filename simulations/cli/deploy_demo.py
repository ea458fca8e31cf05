"""A federation of four hospitals on this machine, as they would run it, from keys to the model."""

from pathlib import Path

import typer

from client.operator.cli import egress_lines
from common.config.run import RunConfig
from common.data.dataset import Dataset
from common.data.splits import site_splits
from common.errors import FedDermError
from server.run.folder import read_metrics
from server.run.summary import run_summary
from simulations.data.agreed_task import agreed, for_task
from simulations.data.partition import partition, write_sites
from simulations.runtimes.loopback import Loopback
from simulations.runtimes.stop_signals import sigterm_raises

_SITES = 4

_RUN = {
    # Few messages, and features within seconds.
    "head": "lda",
    "views": 0,
    "predictions": 1,
    "size": 64,
    "components": 64,
    "min_active": 1,
    "secure": True,
    "expected": _SITES,
    "quorum": _SITES,
    "out": "run",
}


def demo(data: Path, out: Path) -> None:
    """Federate the lesions of ``data``, dealt to four hospitals, and print what came of it.

    Raises
    ------
    FedDermError
        If the training failed; the logs are in ``out``.
    """
    config, dataset = RunConfig.read(_RUN), Dataset.open(data)
    config = config.model_copy(update=agreed(config, dataset.task))
    dataset = for_task(dataset, config.task)
    splits = site_splits(dataset, config.test_fraction, config.folds, config.seed)
    dataset = dataset.with_splits(splits)
    parts = partition(dataset, "iid", _SITES, 1.0, config.seed)
    sites = out / "data"
    write_sites(dataset, parts, sites, link=True)
    folders = {name: sites / name for name in parts}
    with sigterm_raises(), Loopback(out / "federation", folders, config) as federation:
        typer.echo(f"keys and certificates: {federation.folder}")
        federation.start_server()
        typer.echo("the coordinator's server is up, with TLS; the keys of all nodes are registered")
        for name in federation.sites:
            federation.start_node(name)
        federation.wait_for_nodes(federation.sites)
        typer.echo(f"{_SITES} nodes are connected; training")
        if federation.start_training().wait():
            raise FedDermError(f"the training failed; see {federation.folder / 'logs'}")
        run = federation.coordinator / "run"
        typer.echo(f"\n{run_summary(read_metrics(run))}\n")
        for name in federation.sites:
            typer.echo(f"what left {name}, from its egress log:")
            for line in egress_lines(federation.folder / name):
                typer.echo(f"  {line}")
    typer.echo(f"run folder: {run}")
