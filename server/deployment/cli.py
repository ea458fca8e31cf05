"""``fedderm deploy``: what the coordinator of hospitals types."""

import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from common.command_line import run
from common.flower_commands import flwr_environment
from common.logs import tell
from common.site_folder import AUTHORITY
from common.text import printable
from common.wire.certificates import announcement

# Flower takes a second to import: what needs it is imported where it is used.

app = typer.Typer(help="Federate hospitals on machines of their own.", no_args_is_help=True)

Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="The coordinator's folder.")]


@app.command()
def init(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="New folder for all folders.")],
    site: Annotated[list[str], typer.Option(help="Name of a hospital; once for each.")],
    host: Annotated[
        list[str], typer.Option(help="Name or address of the coordinator; sites use the first.")
    ],
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the coordinator.")] = 9092,
) -> None:
    """Make the coordinator's folder and one for each hospital, with keys for TLS."""
    from server.deployment import operations

    operations.init(out, site, host, port)
    typer.echo(
        printable(f"{out / operations.COORDINATOR}: keep it; start the server with its run.sh")
    )
    for name in site:
        line = f"{out / name}: hand it to {name} over a safe way; it holds a private key"
        typer.echo(printable(line))


@app.command()
def renew(
    folder: Folder,
    host: Annotated[list[str], typer.Option(help="Name or address of the coordinator.")],
) -> None:
    """Make a new server certificate, by the same authority, where the old one was deleted."""
    from server.deployment import operations

    operations.renew(folder, host)


@app.command()
def superlink(folder: Folder) -> None:
    """Start the coordinator's server, and register the keys of its hospitals' nodes."""
    from server.deployment import operations

    for certificate in (AUTHORITY, operations.SERVER):
        if soon := announcement(folder / certificate):
            tell(logging.WARNING, soon)
    command = operations.superlink_command(folder)
    subprocess.Popen([sys.executable, "-P", "-m", __spec__.name, "register", str(folder)])
    environment = flwr_environment(folder / "flwr")
    os.execve(command[0], command, environment)


@app.command()
def register(folder: Folder) -> None:
    """Register the nodes of the hospitals whose public keys are in FOLDER/nodes."""
    from server.deployment import operations

    for name in operations.register(folder):
        tell(logging.INFO, f"registered the node of {name}")


@app.command()
def train(folder: Folder) -> None:
    """Train once, with the settings in FOLDER; a run that was interrupted goes on."""
    from server.deployment import operations

    raise typer.Exit(operations.train(folder))


if __name__ == "__main__":
    run(app)
