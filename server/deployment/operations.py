"""A federation on several machines: the folders of coordinator and sites, and their commands."""

import json
import socket
import ssl
import subprocess
import sys
import time
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

import server
from common.config.run import RunConfig
from common.errors import ConfigError, FedDermError
from common.flower_commands import COMPLETED, flwr, flwr_environment, run_config_toml
from common.flower_inside import superlink_options
from common.json_types import JsonObject
from common.site_folder import AUTHORITY, first_file
from common.site_folder import FILE as SITE_FILE
from common.storage.new_file import write_new
from common.storage.reading import read_text
from common.storage.schema import Schema, as_it_is
from common.storage.whole_files import abandoned, make_folder, owned, write_atomically
from common.text import NAME_RULE, Host, explain, is_site_name
from common.wire.secure_sums import LEAST_SITES
from server.deployment.authority import Authority
from server.deployment.pki import check_hosts, make_authority
from server.deployment.server_files import SERVER, SERVER_KEY
from server.deployment.server_files import renew as renew_server
from server.run.summary import exit_code

COORDINATOR = "coordinator"
COORDINATOR_FILE = "coordinator.toml"
AUTHORITY_KEY = "ca.key"
NODES = "nodes"
NUMBER = ".node"
"""Ending of the file beside a node's key that has the node's number."""
SCHEMA = Schema("a coordinator's folder", (as_it_is,))
PORT = 9092
_FLOWER = "flwr"
"""Flower's folder in the coordinator's."""
RUN_FILE = Path(_FLOWER, "last-run")
"""File in the coordinator's folder: number and settings of the last run."""

APP_DIR = Path(server.__file__).parents[1]
"""Folder of the app that a run trains."""

_PATIENCE = 60.0
"""Seconds that the server may take to start."""


class Coordinator(BaseModel):
    """The coordinator's file.

    Attributes
    ----------
    host, port : the host and port at which the server listens.
    here : name or address by which this machine asks its own server; its certificate has it.
    run : settings of a run.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: Host = "0.0.0.0"
    port: Annotated[int, Field(ge=1, le=65535)] = PORT
    here: Host = "127.0.0.1"
    run: Mapping[str, Any] = Field(default_factory=dict)

    @property
    def address(self) -> str:
        """Where this machine asks its own server."""
        return f"{_bracketed(self.here)}:{self.port}"

    @classmethod
    def read(cls, folder: Path) -> "Coordinator":
        """Read the file in a coordinator's folder; a run's relative folders are in there.

        Raises
        ------
        ConfigError
            One line that names what is wrong.
        """
        file = folder / COORDINATOR_FILE
        try:
            coordinator = cls.model_validate(tomllib.loads(read_text(file)))
        except ValidationError as error:
            known = {"": cls.model_fields}
            raise ConfigError(f"{file}: {explain(error, known)}") from error
        except OSError as error:
            raise ConfigError(f"{file} cannot be read ({error.strerror}); restore it") from error
        except ValueError as error:
            raise ConfigError(f"{file} is no TOML file: {error}; correct it") from error
        RunConfig.read(coordinator.run)
        return coordinator

    def run_config(self, folder: Path) -> dict[str, str | int | float]:
        """Return the whole configuration of a run."""
        config = RunConfig.read(self.run)
        # Flower starts the app in a folder of its own.
        paths = {"out": config.out or Path("run"), "parent": config.parent, "model": config.model}
        own = {key: folder.resolve() / path for key, path in paths.items() if path is not None}
        return config.model_copy(update=own).flat()


def init(
    out: Path,
    sites: Sequence[str],
    hosts: Sequence[str],
    port: int = PORT,
    authority: Authority | None = None,
) -> Path | None:
    """Write the folders of a new federation: the coordinator's, and one to hand to each site.

    Parameters
    ----------
    authority : signs the server's certificate; by default one is made for this federation.

    Returns
    -------
    The file of the request that the authority has yet to sign; None if there is none.

    Raises
    ------
    ConfigError
        If there are too few sites or no hosts, or a name is invalid or occurs twice.
    DataError
        If ``out`` holds anything.
    """
    _check_sites(sites, hosts)
    check_hosts(hosts)
    make_folder(out)
    folder = out / COORDINATOR
    settings = _COORDINATOR_TOML.format(port=port, sites=len(sites), quorum=_quorum(len(sites)))
    write_new(folder / COORDINATOR_FILE, settings.encode())
    if authority is None:
        make_authority(folder / AUTHORITY, folder / AUTHORITY_KEY)
    else:
        write_new(folder / AUTHORITY, authority.trusted())
    request = renew(folder, hosts, authority)
    _write_script(folder / "run.sh", "deploy superlink")
    _write_script(folder / "train.sh", "deploy train")
    (folder / NODES).mkdir()
    folder.chmod(0o700)
    for site in sites:
        _init_site(out / site, folder, f"{_bracketed(hosts[0])}:{port}")
    return request


def _check_sites(sites: Sequence[str], hosts: Sequence[str]) -> None:
    if not sites or not hosts:
        raise ConfigError("name at least one --site and, for them to reach, one --host")
    if twice := {site for site in sites if sites.count(site) > 1}:
        raise ConfigError(f"the site {min(twice)} is named twice; each needs a name of its own")
    for site in sites:
        if site == COORDINATOR or not is_site_name(site):
            raise ConfigError(f"'{site}' is no name of a site; {NAME_RULE}")
    if len(sites) < LEAST_SITES:
        raise ConfigError(
            f"{len(sites)} of at least {LEAST_SITES} sites are named: of a sum over fewer, one "
            "finds another's share"
        )


def renew(folder: Path, hosts: Sequence[str], authority: Authority | None = None) -> Path | None:
    """Renew the server's certificate by an authority, by default by the federation's own.

    Returns
    -------
    The file of the request that the authority has yet to sign; None if there is none.
    """
    if authority is None:
        key = folder / AUTHORITY_KEY
        authority = Authority.read(folder / AUTHORITY, key if key.exists() else None)
    return renew_server(folder, hosts, authority, Coordinator.read(folder).here)


def _init_site(folder: Path, coordinator: Path, superlink: str) -> None:
    name = folder.name
    write_new(folder / AUTHORITY, (coordinator / AUTHORITY).read_bytes())
    write_new(folder / SITE_FILE, first_file(name, superlink).encode())
    _write_script(folder / "run.sh", "site run")
    folder.chmod(0o700)


def superlink_command(folder: Path) -> list[str]:
    """Return the command that starts the coordinator's server."""
    config = Coordinator.read(folder)
    SCHEMA.upgrade(folder)
    files = (folder / name for name in (AUTHORITY, SERVER, SERVER_KEY, "superlink.db"))
    options = superlink_options(config.host, config.port, *files)
    return [sys.executable, "-P", "-m", "server.deployment.superlink", *options]


def train(folder: Path) -> int:
    """Run one training; what it logs goes to standard output. Return the exit code.

    A run that was interrupted goes on; one that is being trained is followed. The exit code is
    another than 0 where the run failed, and where its model may not replace that of its parent.

    Raises
    ------
    FedDermError
        If no run can be started, or this process is interrupted; the server trains on.
    """
    environment = environment_of(folder)
    with owned(folder / _FLOWER, wait=True):  # so that of two starts the second finds the first
        known = _going_on(folder, environment)
        run = known or _start(folder, environment)
    print(f"{'following' if known else 'started'} run {run}", flush=True)
    if _follow(run, environment):
        return train(folder) if known else 1
    return exit_code(Path(str(Coordinator.read(folder).run_config(folder)["out"])))


def _going_on(folder: Path, environment: Mapping[str, str]) -> str | None:
    """Return the last run with these settings, if it is not finished.

    A run whose process was killed is ended: the server may show it for another minute.
    """
    known, config = folder / RUN_FILE, Coordinator.read(folder).run_config(folder)
    if not known.exists():
        return None
    run, _, settings = known.read_text(encoding="utf-8").partition("\n")
    status = _status(run, environment)
    if settings != run_config_toml(config) or status.startswith("finished"):
        return None
    if status == "running" and abandoned(Path(str(config["out"]))):
        flwr(environment, "stop", run, COORDINATOR)
        return None
    return run


def _start(folder: Path, environment: Mapping[str, str]) -> str:
    """Let the server start a run; return its number."""
    if not (APP_DIR / "pyproject.toml").is_file():
        raise FedDermError(f"{APP_DIR} is no clone of this program; install it from one, editable")
    config = Coordinator.read(folder).run_config(folder)
    settings, file = run_config_toml(config), folder / _FLOWER / "run-config.toml"
    write_atomically(file, settings.encode())
    with owned(Path(str(config["out"]))):
        pass  # nobody writes there, and what a killed process left of its lock is removed
    command = ["run", str(APP_DIR), COORDINATOR, "--format", "json", "--run-config", str(file)]
    done = flwr(environment, *command)
    try:
        run = str(json_in(done.stdout)["run-id"])
    except (ValueError, LookupError) as error:
        raise FedDermError(f"no run was started: {one_line(done.stdout)}") from error
    write_atomically(folder / RUN_FILE, f"{run}\n{settings}".encode())
    return run


def _follow(run: str, environment: Mapping[str, str]) -> bool:
    """Show what a run logs until it ends; return whether it failed."""
    try:
        subprocess.run(["flwr", "log", run, COORDINATOR, "--stream"], env=environment, check=False)
        return _status(run, environment) != COMPLETED
    except KeyboardInterrupt:
        home = environment["FLWR_HOME"]
        raise FedDermError(
            f"the server trains on; train.sh started again shows it, and "
            f"`FLWR_HOME={home} flwr stop {run} {COORDINATOR}` ends it"
        ) from None


def _status(run: str, environment: Mapping[str, str]) -> str:
    """Return the status of a run by the server, "finished" where it knows no such run."""
    listing = flwr(environment, "list", COORDINATOR, "--run-id", run, "--format", "json")
    try:
        return str(json_in(listing.stdout)["runs"][0]["status"])
    except (ValueError, LookupError):
        return "finished"


def json_in(text: str) -> JsonObject:
    """Return the JSON in a Flower command's output, which follows its messages.

    Raises
    ------
    ValueError
        If there is none.
    """
    values: JsonObject = json.loads(text[text.index("{") :])
    return values


def environment_of(folder: Path) -> dict[str, str]:
    """Return the environment of Flower's commands, which find the server by a file there."""
    SCHEMA.upgrade(folder)
    home = folder.resolve() / _FLOWER
    home.mkdir(exist_ok=True)
    address = Coordinator.read(folder).address
    certificate = folder.resolve() / AUTHORITY
    content = (
        f'[superlink]\ndefault = "{COORDINATOR}"\n\n[superlink.{COORDINATOR}]\n'
        f'address = "{address}"\nroot-certificates = "{certificate}"\n'
    ).encode()
    file = home / "config.toml"
    if not (file.is_file() and file.read_bytes() == content):  # another command may be reading it
        write_atomically(file, content)
    return flwr_environment(home)


def reach_server(folder: Path) -> None:
    """Connect to the server of this machine.

    Raises
    ------
    OSError
        If it does not answer.
    """
    coordinator = Coordinator.read(folder)
    address = coordinator.here, coordinator.port
    context = ssl.create_default_context(cafile=str(folder / AUTHORITY))
    with socket.create_connection(address, 5) as connection:
        context.wrap_socket(connection, server_hostname=address[0]).close()


def wait_for_server(folder: Path) -> None:
    """Wait until the coordinator's server answers.

    Raises
    ------
    FedDermError
        If it does not within a minute.
    """
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            reach_server(folder)
            return
        except OSError as error:
            if time.monotonic() > end:
                where = Coordinator.read(folder).address
                raise FedDermError(f"no server answers at {where} ({error}); start it") from error
            time.sleep(0.2)


def _write_script(path: Path, command: str) -> None:
    line = f'exec "${{FEDDERM:-fedderm}}" {command} "$(dirname "$0")"'
    write_new(path, f"#!/bin/sh\n{line}\n".encode(), 0o755)


def _quorum(sites: int) -> int:
    """Return the least number that secure sums go on with: above two thirds."""
    return 2 * sites // 3 + 1


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def one_line(text: str) -> str:
    """Return what a command printed as one line."""
    return " ".join(text.split())


_COORDINATOR_TOML = """\
# The coordinator of a federation. `fedderm settings` lists what may stand under [run].
host = "0.0.0.0"
port = {port}

[run]
out = "run"           # in this folder; a new name for each run
expected = {sites}          # sites that are waited for
quorum = {quorum}            # sites that a model needs
timeout = 600.0       # seconds of silence after which a site is left out
secure = true         # the coordinator learns sums over sites, no site's share
"""
