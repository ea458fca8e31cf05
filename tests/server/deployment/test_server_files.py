"""Certificates of a hospital's own authority; OpenSSL's command is that authority."""

import shutil
import subprocess
from pathlib import Path

import pytest

from common.errors import ConfigError
from common.wire.certificates import days_left
from server.deployment import operations
from server.deployment.authority import Authority
from server.deployment.server_files import NEXT_KEY, REQUEST, accept, shake_hands

USAGE = "-addext", "keyUsage=critical,keyCertSign,cRLSign"
SITES, HOST = ["north", "south", "east"], "fed.example.org"
RSA, CURVE = ("rsa:2048",), ("ec", "-pkeyopt", "ec_paramgen_curve:P-256")

pytestmark = pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is not installed")


def openssl(*arguments: object) -> str:
    command = ["openssl", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def make_root(folder: Path, kind: tuple[str, ...] = CURVE, name: str = "Hospital root") -> None:
    """Make root.crt and root.key."""
    folder.mkdir(exist_ok=True)
    files = "-keyout", folder / "root.key", "-out", folder / "root.crt"
    openssl(*("req", "-x509", "-nodes", "-newkey", *kind, "-subj", f"/CN={name}", *USAGE, *files))


def make_between(folder: Path) -> None:
    """Make an authority below the root, issuing.key; issuing.crt holds both certificates."""
    files = "-keyout", folder / "issuing.key", "-out", folder / "issuing.pem"
    extensions = "-addext", "basicConstraints=critical,CA:true,pathlen:0"
    by = "-CA", folder / "root.crt", "-CAkey", folder / "root.key"
    subject = "-subj", "/CN=Hospital issuing"
    openssl(
        *("req", "-x509", "-nodes", "-newkey", *CURVE, *subject, *files), *USAGE, *extensions, *by
    )
    both = (folder / "issuing.pem").read_text() + (folder / "root.crt").read_text()
    (folder / "issuing.crt").write_text(both)


def verified(coordinator: Path, host: str) -> str:
    """Return what OpenSSL says of the server's certificate for a host, by strict rules."""
    server, trusted = coordinator / "server.crt", coordinator / "ca.crt"
    rules = "-purpose", "sslserver", "-x509_strict", "-verify_hostname", host
    return openssl("verify", *rules, "-CAfile", trusted, "-untrusted", server, server)


@pytest.fixture
def hospital(tmp_path: Path) -> Path:
    """Make a root and an authority below it."""
    make_root(tmp_path / "hospital")
    make_between(tmp_path / "hospital")
    return tmp_path / "hospital"


@pytest.mark.parametrize("kind", [RSA, CURVE], ids=["rsa", "curve"])
def test_a_hospitals_root_signs_the_server(tmp_path, kind):
    make_root(tmp_path, kind)
    authority = Authority.read(tmp_path / "root.crt", tmp_path / "root.key")
    assert operations.init(tmp_path / "all", SITES, [HOST], authority=authority) is None
    coordinator = tmp_path / "all" / "coordinator"
    assert verified(coordinator, HOST).endswith(": OK\n")
    trusted = (tmp_path / "all" / "north" / "ca.crt").read_text()
    assert trusted == (tmp_path / "root.crt").read_text()
    # The authority's key is nowhere in the folders.
    secret = (tmp_path / "root.key").read_bytes()
    files = [file for file in (tmp_path / "all").rglob("*") if file.is_file()]
    assert not [file for file in files if secret in file.read_bytes()]
    assert not (coordinator / "ca.key").exists()


def test_sites_trust_the_root_and_the_server_shows_what_is_between(tmp_path, hospital):
    authority = Authority.read(hospital / "issuing.crt", hospital / "issuing.key")
    operations.init(tmp_path / "all", SITES, [HOST], authority=authority)
    coordinator = tmp_path / "all" / "coordinator"
    assert (coordinator / "ca.crt").read_text() == (hospital / "root.crt").read_text()
    assert verified(coordinator, HOST).endswith(": OK\n")


def sign(folder: Path, request: Path, out: Path) -> None:
    """Sign a request by the root, for some days."""
    names = out.with_suffix(".extensions")
    names.write_text("authorityKeyIdentifier=keyid\nsubjectKeyIdentifier=hash\n")
    by = "-CA", folder / "root.crt", "-CAkey", folder / "root.key"
    copied = "-copy_extensions", "copyall", "-days", 90
    openssl("x509", "-req", "-in", request, *by, *copied, "-out", out, "-extfile", names)


def test_an_authority_elsewhere_signs_a_request(tmp_path, hospital):
    authority = Authority.read(hospital / "root.crt")
    request = operations.init(tmp_path / "all", SITES, [HOST], authority=authority)
    coordinator = tmp_path / "all" / "coordinator"
    assert request == coordinator / REQUEST
    assert openssl("req", "-in", request, "-noout", "-verify", "-text").count("DNS:fed.example.org")
    sign(hospital, request, tmp_path / "signed.crt")
    accept(coordinator, tmp_path / "signed.crt", "127.0.0.1")
    assert verified(coordinator, HOST).endswith(": OK\n")
    assert {path.name for path in coordinator.iterdir()} >= {"server.crt", "server.key"}
    assert not (coordinator / NEXT_KEY).exists()
    # Renewed: the server goes on with the old pair until the new one is there, whole.
    before = {name: (coordinator / name).read_bytes() for name in ("server.crt", "server.key")}
    request = operations.renew(coordinator, [HOST])
    assert operations.renew(coordinator, [HOST]) == request
    assert all((coordinator / name).read_bytes() == before[name] for name in before)
    sign(hospital, request, tmp_path / "again.crt")
    accept(coordinator, tmp_path / "again.crt", "127.0.0.1")
    assert all((coordinator / name).read_bytes() != before[name] for name in before)
    shake_hands(*(coordinator / f for f in ("server.crt", "server.key", "ca.crt")), HOST)


def of_another_authority(hospital: Path, coordinator: Path, out: Path) -> None:
    make_root(hospital.parent / "other", name="Other")
    sign(hospital.parent / "other", coordinator / REQUEST, out)


def for_another_key(hospital: Path, coordinator: Path, out: Path) -> None:
    sign(hospital, coordinator / REQUEST, out)
    (coordinator / NEXT_KEY).unlink()
    operations.renew(coordinator, [HOST], Authority.read(hospital / "root.crt"))


def without_this_machines_name(hospital: Path, coordinator: Path, out: Path) -> None:
    names = out.with_name("names")
    names.write_text("subjectAltName=DNS:fed.example.org\nauthorityKeyIdentifier=keyid\n")
    by = "-CA", hospital / "root.crt", "-CAkey", hospital / "root.key"
    openssl(*("x509", "-req", "-in", coordinator / REQUEST, *by, "-out", out, "-extfile", names))


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (of_another_authority, "certificate verify failed"),
        (for_another_key, "key values mismatch"),
        (without_this_machines_name, "IP address mismatch"),
    ],
)
def test_a_certificate_that_would_not_do_is_refused(tmp_path, hospital, spoil, reason):
    authority = Authority.read(hospital / "root.crt")
    operations.init(tmp_path / "all", SITES, [HOST], authority=authority)
    coordinator = tmp_path / "all" / "coordinator"
    spoil(hospital, coordinator, tmp_path / "signed.crt")
    with pytest.raises(ConfigError, match=reason) as refused:
        accept(coordinator, tmp_path / "signed.crt", "127.0.0.1")
    assert "\n" not in str(refused.value)
    assert not (coordinator / "server.crt").exists()
    if spoil is without_this_machines_name:  # the operator says by which it asks
        accept(coordinator, tmp_path / "signed.crt", HOST)


def test_the_federations_own_authority_is_replaced_step_by_step(tmp_path, hospital):
    """Sites trust both first; before that, the new one cannot sign a server that they refuse."""
    operations.init(tmp_path / "all", SITES, [HOST])
    coordinator = tmp_path / "all" / "coordinator"
    new = Authority.read(hospital / "root.crt", hospital / "root.key")
    before = (coordinator / "server.crt").read_bytes()
    with pytest.raises(ConfigError, match="is not accepted by those who trust"):
        operations.renew(coordinator, [HOST], new)
    assert (coordinator / "server.crt").read_bytes() == before
    trusted = coordinator / "ca.crt"
    trusted.write_bytes(trusted.read_bytes() + new.trusted())
    shake_hands(*(coordinator / f for f in ("server.crt", "server.key", "ca.crt")), HOST)
    operations.renew(coordinator, [HOST], new)
    assert verified(coordinator, HOST).endswith(": OK\n")
    # Of two, the one that ends first counts: OpenSSL's default is 30 days.
    assert days_left(trusted.read_bytes()) == pytest.approx(30, abs=0.1)


def test_what_is_no_authority_is_named(tmp_path, hospital):
    make_root(tmp_path / "other")
    (tmp_path / "text").write_text("no certificate")
    operations.init(tmp_path / "all", SITES, [HOST])
    server = tmp_path / "all" / "coordinator" / "server.crt"
    for certificates, key, reason in (
        (tmp_path / "missing", None, "missing holds no certificates"),
        (tmp_path / "text", None, "text holds no certificates"),
        (server, None, "is no authority's"),
        (hospital / "issuing.pem", None, "ends with no root"),
        (hospital / "root.crt", tmp_path / "other" / "root.key", "is not the key of CN=Hospital"),
        (hospital / "root.crt", tmp_path / "text", "text is no private key without a password"),
    ):
        with pytest.raises(ConfigError, match=reason):
            Authority.read(certificates, key)
