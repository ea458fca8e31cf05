"""Keys and certificates of a federation: its authority, its server, and the nodes of its sites.

TLS authenticates the server to the sites; a site's node key authenticates the site to the server.
Curves and formats are those that Flower reads. Private keys are for their owner's eyes only, and
nothing that exists is written over.
"""

import ipaddress
import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from common.errors import ConfigError, DataError
from common.text import is_host

AUTHORITY_DAYS = 3650
SERVER_DAYS = 397
"""Days that a server's certificate is valid; some systems accept no more."""

LOOPBACK = ("localhost", "127.0.0.1", "::1")
"""Names by which the coordinator's own machine asks its server."""

_SKEW = timedelta(minutes=5)
"""How far a site's clock may be behind when a certificate is new."""


def make_authority(certificate: Path, key: Path, days: float = AUTHORITY_DAYS) -> None:
    """Write the key and the certificate of a new authority.

    Raises
    ------
    DataError
        If one of the files exists or cannot be written.
    """
    secret, name = ec.generate_private_key(ec.SECP384R1()), _name("FedDerm authority")
    usage = {"key_cert_sign": True, "crl_sign": True}
    builder = (
        _builder(name, name, secret.public_key(), days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(**usage), critical=True)
    )
    write_secret(key, _private_pem(secret))
    write_new(certificate, _pem(builder.sign(secret, SHA256())))


def make_server(
    certificate: Path,
    key: Path,
    authority: tuple[Path, Path],
    hosts: Sequence[str],
    days: float = SERVER_DAYS,
) -> None:
    """Write the key of a server, and its certificate by an authority.

    Parameters
    ----------
    authority : its certificate and its key.
    hosts : names and addresses by which sites reach the server; this machine's own are added.

    Raises
    ------
    ConfigError
        If a host is neither a name nor an address.
    DataError
        If one of the files exists or cannot be written.
    """
    check_hosts(hosts)
    names = [_general_name(host) for host in dict.fromkeys([*hosts, *LOOPBACK])]
    issuer = x509.load_pem_x509_certificate(authority[0].read_bytes())
    signer = load_pem_private_key(authority[1].read_bytes(), None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    secret = ec.generate_private_key(ec.SECP384R1())
    builder = (
        _builder(_name("FedDerm server"), issuer.subject, secret.public_key(), days)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
    )
    write_secret(key, _private_pem(secret))
    write_new(certificate, _pem(builder.sign(signer, SHA256())))


def check_hosts(hosts: Sequence[str]) -> None:
    """Check the hosts by which sites reach a server, before anything is made for it.

    Raises
    ------
    ConfigError
        If one is neither a name nor an address.
    """
    if odd := [host for host in hosts if not is_host(host)]:
        raise ConfigError(f"'{odd[0]}' is neither a host's name nor an address")


def make_node_key(private: Path, public: Path) -> None:
    """Write the key pair by which a site's node is known to the server.

    Raises
    ------
    DataError
        If one of the files exists or cannot be written.
    """
    secret = ec.generate_private_key(ec.SECP384R1())
    write_secret(private, secret.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    write_new(
        public, secret.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH) + b"\n"
    )


def write_secret(path: Path, content: bytes) -> None:
    """Write a new file that only its owner may read.

    Raises
    ------
    DataError
        If it exists or cannot be written.
    """
    write_new(path, content, 0o600)


def write_new(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Write a new file.

    Raises
    ------
    DataError
        If it exists or cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
    except FileExistsError as error:
        raise DataError(f"{path} exists, and is never written over; name a new folder") from error
    except OSError as error:
        raise DataError(f"cannot write {path} ({error.strerror}); name another folder") from error


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: float
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(now, now + timedelta(days=days)) - _SKEW)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _usage(**allowed: bool) -> x509.KeyUsage:
    names = (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    )
    return x509.KeyUsage(**{name: allowed.get(name, False) for name in names})


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.PEM)
