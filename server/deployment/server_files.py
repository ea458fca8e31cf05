"""The certificate of the coordinator's server: signed here or asked for, and put into its place."""

import ssl
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from common.errors import ConfigError
from common.site_folder import AUTHORITY
from common.storage.new_file import write_secret
from common.storage.reading import read_bytes
from common.storage.whole_files import write_atomically
from server.deployment.authority import Authority
from server.deployment.pki import new_key, private_pem, server_certificate, server_request

SERVER, SERVER_KEY = "server.crt", "server.key"
NEXT_KEY, REQUEST = "server.key.next", "server.csr"


def renew(folder: Path, hosts: Sequence[str], authority: Authority, here: str) -> Path | None:
    """Make a new key for a server, and have it signed; the server takes it when it starts again.

    Parameters
    ----------
    folder : the coordinator's.
    hosts : names and addresses by which sites reach the server.
    authority : if its key is not at hand, a request is written for whoever has it.
    here : name or address by which this machine asks its own server.

    Returns
    -------
    The file of the request; None if the certificate is in its place.

    Raises
    ------
    ConfigError
        If a host is none, or the sites do not trust this authority.
    """
    if authority.key is None:
        return _request(folder, hosts)
    key, following = new_key(), folder / f"{SERVER}.next"
    _replace(folder / NEXT_KEY, private_pem(key))
    write_atomically(following, server_certificate(authority, key, hosts))
    accept(folder, following, here)
    following.unlink()
    return None


def accept(folder: Path, certificate: Path, here: str) -> None:
    """Put a certificate that was signed for the key in waiting into its place, with that key.

    Parameters
    ----------
    certificate : in PEM, and those between it and the authority's root.
    here : as above.

    Raises
    ------
    ConfigError
        If no key waits for it, or sites and this machine would not accept it.
    """
    key = folder / NEXT_KEY
    if not key.exists():
        raise ConfigError(f"{key} is missing; make it and a request by `fedderm deploy renew`")
    try:
        shake_hands(certificate, key, folder / AUTHORITY, here)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise ConfigError(
            f"{certificate} is not accepted by those who trust {folder / AUTHORITY} and ask for "
            f"{here} ({error}); have the request signed by that authority, for that name too"
        ) from error
    write_atomically(folder / SERVER, read_bytes(certificate))
    key.replace(folder / SERVER_KEY)
    (folder / REQUEST).unlink(missing_ok=True)


def shake_hands(certificate: Path, key: Path, authority: Path, host: str) -> None:
    """Let a client that trusts an authority meet a server of that certificate, in memory.

    Raises
    ------
    OSError
        If one refuses the other, or the key is not the certificate's.
    """
    of_server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    of_server.load_cert_chain(certificate, key)
    of_site = ssl.create_default_context(cafile=str(authority))
    of_site.verify_flags |= ssl.VERIFY_X509_STRICT  # as at sites from Python 3.13 on
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    site = of_site.wrap_bio(back, there, server_hostname=host)
    server = of_server.wrap_bio(there, back, server_side=True)
    for side in (site, server, site):
        with suppress(ssl.SSLWantReadError):
            side.do_handshake()
    assert site.version() is not None


def _request(folder: Path, hosts: Sequence[str]) -> Path:
    """Write a request for a key that waits for its certificate; asked again, for the same one."""
    file = folder / NEXT_KEY
    if not file.exists():
        write_secret(file, private_pem(new_key()))
    key = load_pem_private_key(read_bytes(file), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    write_atomically(folder / REQUEST, server_request(key, hosts))
    return folder / REQUEST


def _replace(secret: Path, content: bytes) -> None:
    secret.unlink(missing_ok=True)
    write_secret(secret, content)
