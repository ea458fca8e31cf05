"""An authority that signs the server's certificate: the federation's own, or a hospital's."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from common.errors import ConfigError
from common.storage.reading import read_bytes

SignerKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True)
class Authority:
    """The certificates of an authority, and its key where it is at hand.

    Attributes
    ----------
    signer : the certificate whose key signs servers.
    between : what a server shows beside its own certificate: all up to a root.
    roots : what the sites trust.
    key : the signer's; None if another machine signs.
    """

    signer: x509.Certificate
    between: tuple[x509.Certificate, ...]
    roots: tuple[x509.Certificate, ...]
    key: SignerKey | None = None

    @classmethod
    def read(cls, certificates: Path, key: Path | None = None) -> Self:
        """Read an authority from a file of its certificates, the signer's first, a root's last.

        Raises
        ------
        ConfigError
            If a file is not what it must be, the key is another's, or no root is there.
        """
        chain = read_chain(certificates)
        for each in chain:
            _check_authority(certificates, each)
        roots = tuple(each for each in chain if _is_root(each))
        if not roots:
            raise ConfigError(
                f"{certificates} ends with no root (a certificate that signed itself); append the "
                "authority's certificates up to its root"
            )
        between = tuple(each for each in chain if each not in roots)
        return cls(chain[0], between, roots, _signer_key(key, chain[0]) if key else None)

    def trusted(self) -> bytes:
        """Return what the sites trust, in PEM."""
        return pem(self.roots)


def pem(certificates: tuple[x509.Certificate, ...]) -> bytes:
    """Return certificates in PEM."""
    return b"".join(each.public_bytes(Encoding.PEM) for each in certificates)


def read_chain(file: Path) -> list[x509.Certificate]:
    """Return the certificates in a file of PEM.

    Raises
    ------
    ConfigError
        If there are none.
    """
    try:
        return x509.load_pem_x509_certificates(read_bytes(file))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file} holds no certificates in PEM ({error}); name a file") from error


def _check_authority(file: Path, certificate: x509.Certificate) -> None:
    name = certificate.subject.rfc4514_string()
    try:
        found = certificate.extensions
        signs = found.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
        if not (signs and found.get_extension_for_class(x509.BasicConstraints).value.ca):
            raise ValueError
    except (x509.ExtensionNotFound, ValueError) as error:
        raise ConfigError(
            f"{file}: {name} is no authority's, or does not say that it signs certificates "
            "(keyUsage), without which Python 3.13 trusts none; name an authority's"
        ) from error
    if certificate.not_valid_after_utc < datetime.now(UTC):
        raise ConfigError(f"{file}: {name} has expired; ask the authority for the one in use")


def _is_root(certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(certificate)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _signer_key(file: Path, signer: x509.Certificate) -> SignerKey:
    try:
        key = load_pem_private_key(read_bytes(file), None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigError(
            f"{file} is no private key without a password ({error}); leave out --ca-key, and have "
            "the authority sign the request"
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise ConfigError(f"{file} is neither an elliptic curve's nor an RSA key; use one of these")
    if key.public_key() != signer.public_key():
        name = signer.subject.rfc4514_string()
        raise ConfigError(f"{file} is not the key of {name}; put its certificate first")
    return key
