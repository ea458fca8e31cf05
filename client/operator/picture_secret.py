"""The secret under which operators let their sites' pictures be compared."""

from pathlib import Path

from common.errors import ConfigError
from common.storage.reading import read_text

_LEAST = 32
"""Bytes; whoever can guess the secret can test pictures against the tokens."""


def read_secret(file: Path) -> bytes:
    """Read a secret, which is written in hexadecimal.

    Raises
    ------
    ConfigError
        If there is none, or it is too short.
    """
    try:
        secret = bytes.fromhex(read_text(file).strip())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file} is no secret in hexadecimal ({error}); {_MADE}") from error
    if len(secret) < _LEAST:
        raise ConfigError(f"{file} has {len(secret)} bytes, and {_LEAST} are needed; {_MADE}")
    return secret


_MADE = "make one by `openssl rand -hex 32`, and give the same to the other hospitals"
