"""What the coordinator's server says of the nodes of its sites."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from common.flower_commands import flwr
from common.reading import read_text
from server.deployment.operations import COORDINATOR, NODES, NUMBER, json_in

_GONE = ("unregistered", "deleted")


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
    command = ("supernode", "list", COORDINATOR, "--format", "json")
    listing = json_in(flwr(environment, *command, patience=patience, host=host).stdout)
    found = {str(node["node-id"]): str(node["status"]) for node in listing["nodes"]}
    return {node: state for node, state in found.items() if state not in _GONE}


def numbers(folder: Path) -> dict[str, str]:
    """Return the number of each site's node, by the keys in a coordinator's folder.

    It is "" where a version before 0.2 registered the node.
    """
    keys = sorted((folder / NODES).glob("*.pub"))
    return {key.stem: _content(key.with_suffix(NUMBER)) for key in keys}


def _content(file: Path) -> str:
    try:
        return read_text(file)
    except (OSError, ValueError):
        return ""
