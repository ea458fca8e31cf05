"""How long certificates are valid, and a warning before they expire."""

from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from common.errors import ConfigError
from common.storage.reading import read_bytes

NOTICE_DAYS = 30
"""Days before a certificate expires at which warnings begin."""


def days_left(certificate: bytes, now: datetime | None = None) -> float:
    """Return the days until the first of some certificates expires; negative once it has.

    Parameters
    ----------
    certificate : one in DER, or one or more in PEM.
    now : the time from which they count; None for the present.

    Raises
    ------
    ConfigError
        If it is no certificate.
    """
    try:
        if b"-----BEGIN" in certificate:
            parsed = x509.load_pem_x509_certificates(certificate)
        else:
            parsed = [x509.load_der_x509_certificate(certificate)]
    except ValueError as error:
        raise ConfigError(f"that is no certificate ({error})") from error
    end = min(each.not_valid_after_utc for each in parsed)
    return (end - (now or datetime.now(UTC))).total_seconds() / 86400


def announcement(path: Path) -> str | None:
    """Return a warning that a certificate expires soon or has expired; None long before.

    Raises
    ------
    ConfigError
        If the file is no certificate.
    """
    try:
        left = days_left(read_bytes(path))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}); restore it") from error
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}; restore it") from error
    if left < 0:
        return f"{path} expired {-left:.0f} days ago; the coordinator must renew it"
    if left < NOTICE_DAYS:
        return f"{path} expires in {left:.0f} days; the coordinator must renew it before"
    return None
