"""The key of a hospital's node: it is made at the hospital, and only its public half leaves."""

from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_private_key,
)

from common.errors import ConfigError
from common.site_folder import NODE_KEY
from common.storage.new_file import write_secret
from common.storage.reading import read_bytes
from common.storage.whole_files import write_atomically

NEXT = f"{NODE_KEY}.next"
"""The key that is to follow, beside the one in use."""


def public_key(folder: Path, name: str = NODE_KEY) -> Path:
    """Return the file of a node's public key; the pair is made if there is none.

    Parameters
    ----------
    folder : the hospital's.
    name : of the private key's file.

    Raises
    ------
    ConfigError
        If the private key is none, or has a password.
    DataError
        If a file cannot be written.
    """
    private = folder / name
    if not private.exists():
        secret = ec.generate_private_key(ec.SECP384R1())
        pem = secret.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
        write_secret(private, pem)
    public = private.with_name(f"{name}.pub")
    # A pair that was moved or copied by halves comes right.
    write_atomically(public, _public_half(private) + b"\n")
    return public


def _public_half(private: Path) -> bytes:
    try:
        key = load_ssh_private_key(read_bytes(private), None).public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:  # a TypeError: it has a password
        raise ConfigError(f"{private} is no key without a password ({error})") from error
    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
