"""The key of a hospital's node, and the fingerprint by which it is known to another person."""

import shutil
import subprocess

import pytest
from cryptography.hazmat.primitives.serialization import load_ssh_private_key, load_ssh_public_key

from client.operator.node_key import NEXT, public_key
from common.errors import ConfigError
from common.site_folder import NODE_KEY
from common.wire.node_keys import fingerprint


def test_a_pair_is_made_once_and_its_secret_is_for_its_owner(tmp_path):
    public = public_key(tmp_path)
    secret = tmp_path / NODE_KEY
    assert secret.stat().st_mode & 0o777 == 0o600
    private = load_ssh_private_key(secret.read_bytes(), None)
    assert private.public_key() == load_ssh_public_key(public.read_bytes())
    before = public.read_bytes()
    following = public_key(tmp_path, NEXT)
    assert following.read_bytes() != before
    public.unlink()
    assert public_key(tmp_path).read_bytes() == before
    # The next one takes the place of the one in use, and its public half follows.
    (tmp_path / NEXT).rename(secret)
    assert public_key(tmp_path).read_bytes() == following.read_bytes()


def test_the_fingerprint_is_what_openssh_shows(tmp_path):
    if not (program := shutil.which("ssh-keygen")):
        pytest.skip("ssh-keygen is not installed")
    public = public_key(tmp_path)
    shown = subprocess.run([program, "-lf", public], capture_output=True, text=True, check=True)
    assert fingerprint(public) == shown.stdout.split()[1]


@pytest.mark.parametrize("content", [b"", b"no key", b"ecdsa-sha2-nistp384 AAAA"])
def test_what_is_no_public_key_is_named(tmp_path, content):
    (tmp_path / "north.pub").write_bytes(content)
    with pytest.raises(
        ConfigError, match=r"north\.pub is no public key .* send its node.pub again"
    ):
        fingerprint(tmp_path / "north.pub")


def test_a_key_with_a_password_is_named(tmp_path):
    if not (program := shutil.which("ssh-keygen")):
        pytest.skip("ssh-keygen is not installed")
    make = [program, "-qt", "ecdsa", "-b", "384", "-N", "secret", "-f", tmp_path / NODE_KEY]
    subprocess.run(make, check=True)
    with pytest.raises(ConfigError, match="node is no key without a password"):
        public_key(tmp_path)
