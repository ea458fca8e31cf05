"""What a hospital pins by hash: the program, the pretrained weights and the network made of them.

The operators of a federation review all three once, write down the hashes, and each names the file
in its own configuration. Whatever a coordinator then asks for, a site answers for these alone.
"""

import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

from client.site import Site
from common.config.run import RunConfig
from common.errors import ConfigError, Reason, RefusalError
from common.features.pretrained import weights_digest
from common.methods import METHODS
from common.sources import sources_digest
from common.storage.reading import read_text

CODE, WEIGHTS, NETWORK = "code", "weights", "network"

_LIBRARIES = ("timm", "torch")
"""What the layers of a network are made of."""


def digests(config: RunConfig) -> dict[str, str]:
    """Return the SHA-256, in hexadecimal, of all that can be pinned, for a run's configuration.

    Raises
    ------
    ConfigError
        If its backbone cannot be used.
    DataError
        If its weights cannot be read.
    """
    return {
        CODE: code_digest(),
        WEIGHTS: weights_digest(config.backbone, config.weights),
        NETWORK: network_digest(config),
    }


def check(site: Site) -> None:
    """Check that this site runs what its operator pinned, if anything.

    The network is compared only where a method trains it, with the coordinator's weights.

    Raises
    ------
    RefusalError
        If a hash differs.
    ConfigError
        If the operator's file is no file of hashes.
    """
    if site.rules.pins is None:
        return
    config = site.config
    present = {CODE: code_digest(), WEIGHTS: weights_digest(config.backbone, config.weights)}
    _compare(site.rules.pins, present)
    if METHODS[config.method].trains_network:
        check_network(site)


def check_network(site: Site) -> None:
    """Check that the network for the coordinator's weights is what its operator pinned, if any.

    Errors are those of :func:`check`.
    """
    if site.rules.pins is not None:
        _compare(site.rules.pins, {NETWORK: network_digest(site.config)})


def _compare(pins: Path, present: Mapping[str, str]) -> None:
    pinned = _read(pins)
    for name, digest in present.items():
        if digest != pinned[name]:
            raise RefusalError(
                Reason.PINS,
                f"the {name} of this site, {digest[:12]}, is not what its operator pinned, "
                f"{pinned[name][:12]}; run what was reviewed, or review this and pin it",
            )


@lru_cache(maxsize=1)
def code_digest() -> str:
    """Return a digest of the sources of this program that run at a site, by name and content."""
    return sources_digest(_packages())


def network_digest(config: RunConfig) -> str:
    """Return a digest of a network's graph, its layers, and its parameters' names and shapes."""
    from common.networks.network import run_network  # it imports PyTorch

    network = run_network(config)
    facts = {
        "backbone": config.backbone,
        "graph": str(network.graph),
        "layers": str(network),
        "parameters": [
            (name, str(p.dtype), list(p.shape)) for name, p in network.named_parameters()
        ],
        "libraries": {name: version(name) for name in _LIBRARIES},
    }
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _packages() -> set[str]:
    """Return the rooms whose code runs at a site, and packages that methods come from."""
    modules = ((method.client, method.model, method.allowlist) for method in METHODS.values())
    return {"client", "common"} | {
        name.partition(".")[0] for each in modules for name in each if name
    }


def _read(file: Path) -> Mapping[str, str]:
    """Read a file of hashes, as ``fedderm pins`` prints it."""
    try:
        lines = read_text(file).splitlines()
        pinned = dict(line.split() for line in lines if line.strip())
        if pinned.keys() != {CODE, WEIGHTS, NETWORK}:
            raise ValueError(f"it has {', '.join(sorted(pinned)) or 'nothing'}")
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{file} is no file of hashes of code, weights and network ({error}); "
            "write it by `fedderm pins`"
        ) from error
    return pinned
