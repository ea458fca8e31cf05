"""The nodes of hospitals that the coordinator's server lets in, by the keys in its folder."""

from collections.abc import Mapping
from pathlib import Path

from common.errors import ConfigError, FedDermError
from common.files import write_atomically
from common.flower_commands import flwr
from common.flower_inside import KEY_IS_KNOWN
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
    keys = sorted((folder / NODES).glob("*.pub"))
    new = {}
    for key in keys:
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
    if name not in {file.stem for file in key.parent.glob("*.pub")}:
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
