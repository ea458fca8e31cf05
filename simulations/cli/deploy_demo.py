"""A federation of four hospitals on this machine, as they would run it, from keys to the model."""

from pathlib import Path

import typer

from client.operator.cli import egress_lines
from common.config.run import RunConfig
from common.errors import FedDermError
from server.run.folder import read_metrics
from server.run.summary import run_summary
from simulations.runtimes.loopback import Loopback
from simulations.runtimes.network import Network
from simulations.runtimes.stop_signals import sigterm_raises
from simulations.soak.checks import nothing_leaked, same_model
from simulations.soak.deployed import QUICK, SITES, deal, deploy, host_names
from simulations.soak.events import Story


def demo(data: Path, out: Path) -> None:
    """Federate the lesions of ``data``, dealt to four hospitals, and print what came of it.

    Raises
    ------
    FedDermError
        If the training failed; the logs are in ``out``.
    """
    config, folders = deal(data, out / "data", RunConfig.read(QUICK))
    with sigterm_raises(), Loopback(out / "federation", folders, config) as federation:
        typer.echo(f"keys and certificates: {federation.folder}")
        federation.start_server()
        typer.echo("the coordinator's server is up, with TLS; the keys of all nodes are registered")
        for name in federation.sites:
            federation.start_node(name)
        federation.wait_for_nodes(federation.sites)
        typer.echo(f"{SITES} nodes are connected; training")
        if federation.start_training().wait():
            raise FedDermError(f"the training failed; see {federation.folder / 'logs'}")
        _show(federation)


def demo_on_hosts(data: Path, out: Path) -> None:
    """Federate them on hosts of their own, let happen what happens in years, and check the model.

    Raises
    ------
    FedDermError
        If this machine cannot make hosts, the training failed, or something does not hold.
    """
    with sigterm_raises(), Network(host_names()) as network:
        deployment = deploy(data, out, network)
        federation = deployment.federation
        typer.echo(f"hosts in namespaces of their own, with no way out: {', '.join(host_names())}")
        with federation:
            for line in Story(deployment).events():
                typer.echo(f"holds: {line}")
            same_model(federation, "run", deployment.expected)
            typer.echo("holds: the model is, bit for bit, that of an undisturbed run in process")
            for line in nothing_leaked(federation):
                typer.echo(f"holds: nothing but masked sums left {line}")
            _show(federation)


def _show(federation: Loopback) -> None:
    run = federation.coordinator / "run"
    typer.echo(f"\n{run_summary(read_metrics(run))}\n")
    for name in federation.sites:
        typer.echo(f"what left {name}, from its egress log:")
        for line in egress_lines(federation.folder / name):
            typer.echo(f"  {line}")
    typer.echo(f"run folder: {run}")
