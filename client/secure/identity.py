"""Who a site is: its signing key, and the public keys of the others that it trusts."""

import hmac
from pathlib import Path
from typing import Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from client.open_site import site_folders
from client.site import Site
from common.errors import ConfigError, Reason, RefusalError
from common.storage.reading import read_text
from common.storage.whole_files import locked, write_atomically
from common.text import is_site_name
from common.wire.secure_sums import derive

_FOLDER = "identity"
"""Name of the folder of keys, in a site's own folder."""


class Identity:
    """A site's Ed25519 key, kept in its folder; the operator gives the public one to the others.

    Parameters
    ----------
    folder : the site's own one.
    """

    def __init__(self, folder: Path) -> None:
        self._secret, self._public = (folder / _FOLDER / n for n in ("secret", "public"))

    @classmethod
    def begun(cls, folder: Path) -> Self:
        """Return a site's identity; make it if there is none.

        Raises
        ------
        DataError
            If it cannot be written.
        """
        identity = cls(folder)
        if identity._secret.exists():
            return identity
        with locked(folder / _FOLDER / "lock"):
            if identity._secret.exists():  # another process was faster
                return identity
            key = Ed25519PrivateKey.generate()
            write_atomically(identity._public, key.public_key().public_bytes_raw().hex().encode())
            write_atomically(identity._secret, key.private_bytes_raw().hex().encode())
        return identity

    def public(self) -> bytes:
        """Return the public key.

        Raises
        ------
        ConfigError
            If there is none.
        """
        return _read_key(self._public)

    def sign(self, statement: bytes) -> bytes:
        """Return a signature."""
        secret = _read_key(self._secret)
        return Ed25519PrivateKey.from_private_bytes(secret).sign(statement)

    def keyed_digest(self, text: str) -> str:
        """Return a digest in hexadecimal that only this site can make or check."""
        key = derive(_read_key(self._secret), "keyed digest", b"")
        return hmac.digest(key, text.encode(), "sha256").hex()


def pinned_keys(site: Site) -> dict[str, bytes]:
    """Return the public keys that a site trusts, by the names of their sites.

    A hospital's are in the file that its operator named, one line a site: its name, a tab or
    spaces, and the key in hexadecimal. Simulated sites find each other's in their folders.

    Raises
    ------
    ConfigError
        If there is no such file, or a line of it is no name and key.
    """
    if not site.deployed:
        assert site.config.sites is not None
        folders = site_folders(site.config.sites)
        known = [folder for folder in folders if (folder / _FOLDER / "public").exists()]
        return {folder.name: Identity(folder).public() for folder in known}
    if site.rules.peers is None:
        raise ConfigError("no keys of other sites: name a file of them as 'peers' in the rules")
    return read_keys(site.rules.peers)


def read_keys(file: Path) -> dict[str, bytes]:
    """Read a file of public keys, one line a site.

    Raises
    ------
    ConfigError
        If there is no such file, or a line of it is no name and key.
    """
    try:
        lines = read_text(file).splitlines()
        pairs = [_pair(line) for line in lines if line.strip()]
        if len(dict(pairs)) < len(pairs):
            raise ValueError("a site occurs twice")
        return dict(pairs)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{file} is no file of names and keys ({error}); put each site's line of "
            "`fedderm site identity` into it"
        ) from error


def verify(key: bytes, signature: bytes, statement: bytes, name: str) -> None:
    """Check a signature.

    Raises
    ------
    RefusalError
        If ``key`` did not sign the statement.
    """
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, statement)
    except InvalidSignature as error:
        raise RefusalError(
            Reason.KEYS,
            f"the key that is said to be {name}'s is not signed by the identity pinned for it",
        ) from error


def _read_key(file: Path) -> bytes:
    try:
        return _key(file.read_text(encoding="ascii"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file} holds no key of a site ({error})") from error


def _pair(line: str) -> tuple[str, bytes]:
    name, text = line.rsplit(maxsplit=1)
    if not is_site_name(name):
        raise ValueError(f"{name!r} is no name of a site")
    return name, _key(text)


def _key(text: str) -> bytes:
    key = bytes.fromhex(text)
    if len(key) != 32:
        raise ValueError(f"{text!r} is no key of 32 bytes")
    return key
