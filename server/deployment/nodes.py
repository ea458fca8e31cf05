"""The nodes of a federation's sites, as Flower's server numbers them."""

import json
from collections.abc import Mapping
from pathlib import Path

from common.files import write_atomically
from common.flower_commands import flwr, json_in
from common.reading import read_text

_FILE = "nodes.json"
"""File in Flower's folder: the number of each node that was registered, by site."""

_GONE = ("unregistered", "deleted")


def states(environment: Mapping[str, str], server: str, patience: float) -> dict[str, str]:
    """Return what the server says of each registered node, by its number: "online", for instance.

    Parameters
    ----------
    environment : of Flower's commands.
    server : its name there.
    patience : seconds that it may take.

    Raises
    ------
    ValueError, LookupError, TypeError
        If what it says is not understood.
    subprocess.TimeoutExpired
        If it takes longer.
    """
    command = ("supernode", "list", server, "--format", "json")
    listing = json_in(flwr(environment, *command, patience=patience).stdout)
    found = {str(node["node-id"]): str(node["status"]) for node in listing["nodes"]}
    return {node: state for node, state in found.items() if state not in _GONE}


def known_nodes(folder: Path) -> dict[str, str]:
    """Return the numbers of the nodes that were registered, by site; ``folder`` is Flower's.

    Those that a version before 0.2 registered are not known.
    """
    try:
        known = json.loads(read_text(folder / _FILE))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def note_node(folder: Path, site: str, node: str) -> None:
    """Note the number of a site's node in Flower's folder."""
    known = known_nodes(folder) | {site: node}
    write_atomically(folder / _FILE, json.dumps(known).encode())
