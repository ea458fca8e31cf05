"""Keys and certificates of a federation's authority and server, which TLS shows to the sites.

Private keys are for their owner's eyes only, and nothing that exists is written over.
"""

import ipaddress
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
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from common.errors import ConfigError
from common.storage.new_file import write_new, write_secret
from common.text import is_host
from server.deployment.authority import Authority, pem

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
    write_secret(key, private_pem(secret))
    write_new(certificate, pem((builder.sign(secret, SHA256()),)))


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
    authority : files of its certificate and its key.
    hosts : names and addresses by which sites reach the server; this machine's own are added.

    Raises
    ------
    ConfigError
        If a host is neither a name nor an address.
    DataError
        If one of the files exists or cannot be written.
    """
    secret = new_key()
    signed = server_certificate(Authority.read(*authority), secret, hosts, days)
    write_secret(key, private_pem(secret))
    write_new(certificate, signed)


def new_key() -> ec.EllipticCurvePrivateKey:
    """Return a new key of a server."""
    return ec.generate_private_key(ec.SECP384R1())


def server_certificate(
    authority: Authority,
    key: ec.EllipticCurvePrivateKey,
    hosts: Sequence[str],
    days: float = SERVER_DAYS,
) -> bytes:
    """Return a server's certificate, and those between it and the authority's root, in PEM.

    Parameters
    ----------
    authority : with its key.
    hosts : names and addresses by which sites reach the server; this machine's own are added.

    Raises
    ------
    ConfigError
        If a host is neither a name nor an address.
    """
    signer, public = authority.key, key.public_key()
    assert signer is not None
    builder = _builder(_name("FedDerm server"), authority.signer.subject, public, days)
    builder = builder.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
    )
    for extension, critical in _of_server(hosts):
        builder = builder.add_extension(extension, critical)
    return pem((builder.sign(signer, SHA256()), *authority.between))


def server_request(key: ec.EllipticCurvePrivateKey, hosts: Sequence[str]) -> bytes:
    """Return a request in PEM that an authority elsewhere signs; arguments and errors as above."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(_name("FedDerm server"))
    for extension, critical in _of_server(hosts):
        builder = builder.add_extension(extension, critical)
    return builder.sign(key, SHA256()).public_bytes(Encoding.PEM)


def _of_server(hosts: Sequence[str]) -> list[tuple[x509.ExtensionType, bool]]:
    """Return what a server's certificate says, and whether others must understand it."""
    check_hosts(hosts)
    names = [_general_name(host) for host in dict.fromkeys([*hosts, *LOOPBACK])]
    return [
        (x509.SubjectAlternativeName(names), False),
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (_usage(digital_signature=True), True),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),
    ]


def check_hosts(hosts: Sequence[str]) -> None:
    """Check the hosts by which sites reach a server, before anything is made for it.

    Raises
    ------
    ConfigError
        If one is neither a name nor an address.
    """
    if odd := [host for host in hosts if not is_host(host)]:
        raise ConfigError(f"'{odd[0]}' is neither a host's name nor an address")


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


def private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a private key in PEM."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
