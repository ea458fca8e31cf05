"""``fedderm site``: what a hospital's operator types."""

import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from client.operator.site_rules import Operator
from client.state import STATE
from common.errors import ConfigError
from common.flower_commands import flwr_environment
from common.flower_inside import SUPERNODE_ENVIRONMENT, supernode_options
from common.logs import tell
from common.site_folder import AUTHORITY, FILE, NODE_KEY
from common.text import printable
from common.wire.certificates import announcement

app = typer.Typer(help="Run and inspect a hospital's part of a federation.", no_args_is_help=True)

Folder = Annotated[
    Path, typer.Argument(metavar="FOLDER", help=f"The hospital's folder, with {FILE}.")
]


@app.command()
def run(folder: Folder) -> None:
    """Start this hospital's node: Flower's SuperNode, with this program as its only app.

    The log of all that left is verified first.
    """
    typer.echo(f"egress log {_verified_log(folder)}")
    for warning in (announcement(folder / AUTHORITY), clock_warning(folder)):
        if warning:
            tell(logging.WARNING, warning)
    command, environment = node_command(folder)
    os.execve(command[0], command, environment)


@app.command()
def check(folder: Folder) -> None:
    """Check whether this hospital is ready, a line for each check; exit code 1 for a problem."""
    from client.operator.readiness import check as look

    findings = list(look(folder, Operator.read(folder / FILE)))
    for finding in findings:
        typer.echo(finding)
    if not all(finding.good for finding in findings):
        raise typer.Exit(1)


@app.command()
def service(folder: Folder) -> None:
    """Print a unit of systemd that runs this hospital's node as a service, in a sandbox."""
    from common.operation.systemd_unit import systemd_unit

    operator, folder = Operator.read(folder / FILE), folder.resolve()
    writable = [folder, operator.cache, operator.state]
    if not operator.seals.is_relative_to(Path.home()):  # else they are in the service's own home
        writable.append(operator.seals)
    what = f"Federated node of {operator.name}"
    command = "site", "run", folder
    typer.echo(systemd_unit(what, command, writable, [operator.data]), nl=False)


def node_command(folder: Path) -> tuple[list[str], dict[str, str]]:
    """Return the command of a hospital's node, and its environment."""
    from client.operator.flower_process import make_commands  # it imports Flower

    folder = folder.resolve()
    operator = Operator.read(folder / FILE)
    if not (folder / NODE_KEY).exists():
        raise ConfigError(f"{folder / NODE_KEY} is missing; make it by `fedderm site key {folder}`")
    STATE.upgrade(operator.state)
    commands = operator.state / "bin"
    make_commands(commands)
    home = operator.state / "flwr"
    home.mkdir(parents=True, exist_ok=True)
    keys = folder / AUTHORITY, folder / NODE_KEY
    config = f"site={str(folder / FILE)!r}"
    options = supernode_options(operator.superlink, *keys, operator.port, config)
    environment = {**flwr_environment(home), **SUPERNODE_ENVIRONMENT, "PATH": str(commands)}
    node = [sys.executable, "-P", "-m", "client.operator.supernode"]
    return [*node, *options], environment


@app.command()
def key(
    folder: Folder,
    following: Annotated[
        bool, typer.Option("--next", help="The key that is to follow the one in use.")
    ] = False,
) -> None:
    """Name the public key of this hospital's node, for the coordinator; make the pair if needed."""
    from client.operator.node_key import NEXT, public_key
    from common.wire.node_keys import fingerprint

    Operator.read(folder / FILE)
    public = public_key(folder, NEXT if following else NODE_KEY)
    typer.echo(printable(f"{public}  {fingerprint(public)}"))


def clock_warning(folder: Path) -> str | None:
    """Return a warning where the clock of a hospital's machine is wrong."""
    from client.operator.clock import warning

    return warning(folder, Operator.read(folder / FILE))


@app.command()
def identity(
    folders: Annotated[list[Path], typer.Argument(metavar="FOLDER...", help="Hospitals' folders.")],
) -> None:
    """Print a line for each hospital, its name and public key, for the file that `peers` names.

    A hospital without a key gets one; the secret key stays in its state folder.
    """
    for folder in folders:
        typer.echo(identity_line(folder))


@app.command()
def log(folder: Folder) -> None:
    """Verify the log of all that left this hospital, and print it."""
    for line in egress_lines(folder):
        typer.echo(line)


def egress_lines(folder: Path) -> Iterator[str]:
    """Describe a hospital's egress log, which is verified."""
    from client.egress.log import lines_of  # it imports Flower

    return lines_of(Operator.read(folder / FILE))


def _verified_log(folder: Path) -> str:
    from client.egress.log import verified  # it imports Flower

    return verified(Operator.read(folder / FILE))


def identity_line(folder: Path) -> str:
    """Return a hospital's name and public key; one is made if there is none."""
    from client.secure.identity import Identity  # it imports Flower

    operator = Operator.read(folder / FILE)
    return f"{operator.name}\t{Identity.begun(operator.state).public().hex()}"
