"""``fedderm deploy``: what the coordinator of hospitals types."""

import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from common.command_line import run
from common.errors import ConfigError
from common.flower_commands import flwr_environment
from common.logs import tell
from common.site_folder import AUTHORITY
from common.text import printable
from common.wire.certificates import announcement

if TYPE_CHECKING:
    from server.deployment.authority import Authority

# Flower takes a second to import: what needs it is imported where it is used.

app = typer.Typer(help="Federate hospitals on machines of their own.", no_args_is_help=True)

Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="The coordinator's folder.")]
Ca = Annotated[
    Path | None,
    typer.Option(help="Certificates of your own authority: the one that signs, up to the root."),
]
CaKey = Annotated[
    Path | None,
    typer.Option(help="The authority's private key; without it a request is written for it."),
]


@app.command()
def init(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="New folder for all folders.")],
    site: Annotated[list[str], typer.Option(help="Name of a hospital; once for each.")],
    host: Annotated[
        list[str], typer.Option(help="Name or address of the coordinator; sites use the first.")
    ],
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the coordinator.")] = 9092,
    ca: Ca = None,
    ca_key: CaKey = None,
) -> None:
    """Make the coordinator's folder and one to hand to each hospital, without any secret."""
    from server.deployment import operations

    request = operations.init(out, site, host, port, _authority(ca, ca_key))
    typer.echo(
        printable(f"{out / operations.COORDINATOR}: keep it; start the server with its run.sh")
    )
    for name in site:
        typer.echo(printable(f"{out / name}: hand it to {name}, by a way where nobody changes it"))
    nodes = out / operations.COORDINATOR / operations.NODES
    typer.echo(printable(f"{nodes}: for each hospital's node.pub, as NAME.pub"))
    _announce(request)


@app.command()
def renew(
    folder: Folder,
    host: Annotated[list[str], typer.Option(help="Name or address of the coordinator.")],
    ca: Ca = None,
    ca_key: CaKey = None,
) -> None:
    """Make a new key and certificate for the server, which takes them when it starts again."""
    from server.deployment import operations

    _announce(operations.renew(folder, host, _authority(ca, ca_key)))


@app.command()
def certificate(
    folder: Folder,
    signed: Annotated[Path, typer.Argument(metavar="CERT", help="What the authority signed.")],
) -> None:
    """Check a certificate that an authority signed on request, and put it into its place."""
    from server.deployment import operations, server_files

    server_files.accept(folder, signed, operations.Coordinator.read(folder).here)


def _authority(certificates: Path | None, key: Path | None) -> "Authority | None":
    from server.deployment.authority import Authority

    if certificates is not None:
        return Authority.read(certificates, key)
    if key is not None:
        raise ConfigError("--ca-key is given without --ca; name the authority's certificates too")
    return None


def _announce(request: Path | None) -> None:
    """Say what is to be done with a request that an authority has yet to sign."""
    if request is not None:
        line = f"{request}: have the authority sign it, then `fedderm deploy certificate "
        typer.echo(printable(f"{line}{request.parent} CERT`"))


@app.command()
def superlink(folder: Folder) -> None:
    """Start the coordinator's server, and register the keys of its hospitals' nodes."""
    from server.deployment import operations
    from server.deployment.server_files import SERVER

    for file in (AUTHORITY, SERVER):
        if soon := announcement(folder / file):
            tell(logging.WARNING, soon)
    command = operations.superlink_command(folder)
    subprocess.Popen([sys.executable, "-P", "-m", __spec__.name, "register", str(folder)])
    environment = flwr_environment(folder / "flwr")
    os.execve(command[0], command, environment)


@app.command()
def register(folder: Folder) -> None:
    """Register the nodes whose public keys are in FOLDER/nodes, also while the server runs."""
    from server.deployment import nodes

    for name, mark in nodes.register(folder).items():
        tell(logging.INFO, f"registered the node of {name}, key {mark}")


@app.command()
def unregister(
    folder: Folder,
    name: Annotated[str, typer.Argument(help="Of the key in FOLDER/nodes, without .pub.")],
) -> None:
    """Let a node in no longer, and remove its public key from FOLDER/nodes."""
    from server.deployment import nodes

    nodes.unregister(folder, name)


@app.command()
def service(folder: Folder) -> None:
    """Print a unit of systemd that runs the coordinator's server as a service, in a sandbox."""
    from common.operation.systemd_unit import systemd_unit
    from server.deployment.operations import Coordinator

    Coordinator.read(folder)
    folder = folder.resolve()
    command = "deploy", "superlink", folder
    typer.echo(systemd_unit("Federated coordinator", command, [folder], []), nl=False)


@app.command()
def train(folder: Folder) -> None:
    """Train once, with the settings in FOLDER; a run that was interrupted goes on."""
    from server.deployment import operations

    raise typer.Exit(operations.train(folder))


if __name__ == "__main__":
    run(app)
