"""Keys and certificates are such that OpenSSL accepts whom it should, and nobody else."""

import socket
import ssl
import threading
from pathlib import Path

import pytest

from common.errors import ConfigError, DataError
from server.deployment.pki import make_authority, make_server


def paths(folder: Path, name: str) -> tuple[Path, Path]:
    return folder / f"{name}.crt", folder / f"{name}.key"


def shake_hands(server: tuple[Path, Path], authority: Path, host: str) -> None:
    """Connect to a server in this process as a site does that asks for ``host``."""
    of_server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    of_server.load_cert_chain(*server)
    of_site = ssl.create_default_context(cafile=str(authority))
    of_site.verify_flags |= ssl.VERIFY_X509_STRICT
    ours, theirs = socket.socketpair()

    def serve() -> None:
        try:
            of_server.wrap_socket(theirs, server_side=True).close()
        except (ssl.SSLError, OSError):
            theirs.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        of_site.wrap_socket(ours, server_hostname=host).close()
    finally:
        ours.close()
        thread.join()


@pytest.fixture
def authority(tmp_path: Path) -> tuple[Path, Path]:
    """Make an authority."""
    made = paths(tmp_path, "ca")
    make_authority(*made)
    return made


@pytest.mark.parametrize("host", ["fed.example.org", "10.1.2.3", "fd00::7", "127.0.0.1", "::1"])
def test_a_server_is_known_by_the_names_it_was_given(tmp_path, authority, host):
    server = paths(tmp_path, "server")
    make_server(*server, authority, ["fed.example.org", "10.1.2.3", "fd00::7"])
    shake_hands(server, authority[0], host)


@pytest.mark.parametrize("host", ["other.example.org", "10.1.2.4"])
def test_but_by_no_other(tmp_path, authority, host):
    server = paths(tmp_path, "server")
    make_server(*server, authority, ["fed.example.org", "10.1.2.3"])
    with pytest.raises(ssl.SSLCertVerificationError, match="is not valid for"):
        shake_hands(server, authority[0], host)


def test_another_authoritys_server_is_refused(tmp_path, authority):
    other, server = paths(tmp_path, "other"), paths(tmp_path, "server")
    make_authority(*other)
    make_server(*server, other, ["fed.example.org"])
    with pytest.raises(ssl.SSLCertVerificationError, match="certificate verify failed"):
        shake_hands(server, authority[0], "fed.example.org")


def test_an_expired_certificate_is_refused(tmp_path, authority):
    server = paths(tmp_path, "server")
    make_server(*server, authority, ["fed.example.org"], days=-1)
    with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        shake_hands(server, authority[0], "fed.example.org")


def test_secrets_are_for_their_owner_and_never_written_over(tmp_path, authority):
    server = paths(tmp_path, "server")
    make_server(*server, authority, ["localhost"])
    before = {}
    for secret in (authority[1], server[1]):
        assert secret.stat().st_mode & 0o777 == 0o600
        before[secret] = secret.read_bytes()
    for again in (
        lambda: make_authority(*authority),
        lambda: make_server(*server, authority, ["localhost"]),
    ):
        with pytest.raises(DataError, match="exists, and is never written over"):
            again()
    assert all(secret.read_bytes() == content for secret, content in before.items())


def test_a_host_that_is_none_is_named(tmp_path, authority):
    with pytest.raises(ConfigError, match="'Klinik Süd' is neither a host's name nor an address"):
        make_server(*paths(tmp_path, "server"), authority, ["Klinik Süd"])
