"""How two people compare the key of a hospital's node: by its fingerprint."""

import base64
import hashlib
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_ssh_public_key

from common.errors import ConfigError
from common.storage.reading import read_bytes


def fingerprint(public: Path) -> str:
    """Return the fingerprint of a public key, as ``ssh-keygen -l`` shows it.

    Raises
    ------
    ConfigError
        If the file is no public key.
    """
    try:
        content = read_bytes(public)
        load_ssh_public_key(content)
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError(
            f"{public} is no public key ({error}); have the hospital send its node.pub again"
        ) from error
    digest = hashlib.sha256(base64.b64decode(content.split()[1])).digest()
    return f"SHA256:{base64.b64encode(digest).decode().rstrip('=')}"
