"""Fetch pretrained weights from timm's model hub, on a machine that reaches it."""

import hashlib
import tempfile
from pathlib import Path

from common.errors import ConfigError, DataError, reason

_FILE = "model.safetensors"
"""What timm's weights are called in the hub."""


def download_weights(backbone: str, digest: str, file: Path) -> None:
    """Write a backbone's pretrained weights to a new file, if they are those that are expected.

    Parameters
    ----------
    backbone : a name that timm knows, such as "resnet18.a1_in1k".
    digest : SHA-256 of the file in hexadecimal, as the hub's page of the backbone shows it.
    file : a new ``.safetensors`` file.

    Raises
    ------
    ConfigError
        If the file exists already, the digest is none, or timm knows no such weights in its hub.
    DataError
        If the weights cannot be fetched or written, or have another digest.
    """
    if file.exists():
        raise ConfigError(f"{file} exists already; name a new file")
    if file.suffix != ".safetensors":
        raise ConfigError(f"{file} does not end with .safetensors; the hub's weights are such")
    if len(digest) != 64 or set(digest.lower()) - set("0123456789abcdef"):
        raise ConfigError(
            f"'{digest}' is no SHA-256; the hub's page of the weights shows its 64 digits"
        )
    repository = _repository(backbone)
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{file.name}-", dir=file.parent) as folder:
        fetched = _fetch(repository, Path(folder))
        with fetched.open("rb") as content:
            found = hashlib.file_digest(content, "sha256").hexdigest()
        if found != digest.lower():
            raise DataError(
                f"{_FILE} of {repository} has the SHA-256 {found}, not {digest.lower()}; "
                "nothing was kept"
            )
        fetched.replace(file)


def _repository(backbone: str) -> str:
    import common.features.torchvision_ops  # noqa: F401  (before timm)

    import timm  # isort: skip

    config = timm.get_pretrained_cfg(backbone) if timm.is_model_pretrained(backbone) else None
    if config is None or not config.hf_hub_id:
        raise ConfigError(
            f"timm's hub has no weights of a backbone '{backbone}'; see timm.list_pretrained()"
        )
    return str(config.hf_hub_id)


def _fetch(repository: str, folder: Path) -> Path:
    from httpx import HTTPError
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(repository, _FILE, local_dir=folder))
    except (HfHubHTTPError, LocalEntryNotFoundError, HTTPError, OSError) as error:
        raise DataError(f"{repository} cannot be fetched: {reason(error)}") from error
