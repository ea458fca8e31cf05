"""The nodes of hospitals that the coordinator's server lets in, by the keys in its folder."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from common.errors import ConfigError, FedDermError
from common.flower_commands import flwr
from common.flower_inside import KEY_IS_KNOWN
from common.storage.reading import read_text
from common.storage.whole_files import write_atomically
from common.wire.node_keys import fingerprint
from server.deployment.operations import (
    COORDINATOR,
    NODES,
    NUMBER,
    environment_of,
    json_in,
    one_line,
    wait_for_server,
)

_GONE = ("unregistered", "deleted")


def register(folder: Path) -> dict[str, str]:
    """Register all nodes whose keys are in the folder; return new ones' names and fingerprints.

    Raises
    ------
    ConfigError
        If a file there is no public key; those before it are registered.
    FedDermError
        If the server does not answer, or refuses a key.
    """
    environment = environment_of(folder)
    wait_for_server(folder)
    new = {}
    for key in _keys(folder):
        mark = fingerprint(key)
        if _register(key, environment):
            new[key.stem] = mark
    return new


def unregister(folder: Path, name: str) -> None:
    """Let a node in no longer, and remove its key from the folder.

    Parameters
    ----------
    name : of its key's file, without the ending.

    Raises
    ------
    ConfigError
        If the folder has no such key, or its node's number is not known.
    FedDermError
        If the server does not answer, or refuses.
    """
    key = folder / NODES / f"{name}.pub"
    number = _number_of(key)
    if name not in {file.stem for file in _keys(folder)}:
        raise ConfigError(f"{key} is missing; name one of the keys in {key.parent}")
    if not number.exists():
        raise ConfigError(
            f"the number of the node of {name} is not known, as an earlier version registered it; "
            "`flwr supernode list` shows it, and `flwr supernode unregister` ends it"
        )
    environment = environment_of(folder)
    wait_for_server(folder)
    done = flwr(environment, "supernode", "unregister", number.read_text(), COORDINATOR)
    if done.returncode:
        raise FedDermError(f"{name} is still registered: {one_line(done.stdout)}")
    key.unlink()
    number.unlink()


def states(
    environment: Mapping[str, str], patience: float, host: Sequence[str] = ()
) -> dict[str, str]:
    """Return what the server says of each registered node, by its number: "online", for instance.

    Parameters
    ----------
    environment : of Flower's commands.
    patience : seconds that it may take.
    host : a command that starts others on the server's host; empty for this one.

    Raises
    ------
    ValueError, LookupError, TypeError
        If what it says is not understood.
    TimeoutError
        If it takes longer.
    """
    command = "supernode", "list", COORDINATOR, "--format", "json"
    listing = json_in(flwr(environment, *command, patience=patience, host=host).stdout)
    found = {str(node["node-id"]): str(node["status"]) for node in listing["nodes"]}
    return {node: state for node, state in found.items() if state not in _GONE}


def numbers(folder: Path) -> dict[str, str]:
    """Return the number of each site's node, by the keys in a coordinator's folder.

    It is "" where a version before 0.2 registered the node.
    """
    return {key.stem: _content(_number_of(key)) for key in _keys(folder)}


def _register(key: Path, environment: Mapping[str, str]) -> bool:
    """Register a key; return if it is new. The number of its node is kept beside it."""
    command = "supernode", "register", str(key), COORDINATOR, "--format", "json"
    done = flwr(environment, *command)
    try:
        said = json_in(done.stdout)
        write_atomically(_number_of(key), str(int(said["node-id"])).encode())
        return True
    except (ValueError, LookupError) as error:
        if KEY_IS_KNOWN in done.stdout:
            return False
        line = one_line(done.stdout)
        raise FedDermError(f"the key {key} was not registered: {line}") from error


def _number_of(key: Path) -> Path:
    return key.with_suffix(NUMBER)


def _keys(folder: Path) -> list[Path]:
    """Return the public keys in a coordinator's folder, in the order of their names."""
    return sorted((folder / NODES).glob("*.pub"))


def _content(file: Path) -> str:
    try:
        return read_text(file)
    except (OSError, ValueError):
        return ""
