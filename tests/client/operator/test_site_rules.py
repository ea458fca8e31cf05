"""The file of a hospital's operator is read whole, or what is wrong with it is said in one line."""

import re
from pathlib import Path

import pytest

from client.operator.site_rules import Operator
from common.errors import ConfigError

LEAST = 'name = "here"\ndata = "images"\nsuperlink = "fed.example.org:9092"\n'


def write(folder: Path, text: str) -> Path:
    file = folder / "site.toml"
    file.write_text(text)
    return file


def test_names_of_folders_are_in_the_files_own(tmp_path):
    found = Operator.read(write(tmp_path, LEAST + '[rules]\npeers = "peers"\n'))
    assert (found.data, found.cache, found.state) == tuple(
        tmp_path / name for name in ("images", "cache", "state")
    )
    assert found.rules.peers == tmp_path / "peers"
    assert Operator.read(write(tmp_path, LEAST.replace("images", "/data"))).data == Path("/data")


def test_a_change_holds_from_the_next_reading_on(tmp_path):
    assert Operator.read(write(tmp_path, LEAST)).rules.least_sites == 0
    assert Operator.read(write(tmp_path, LEAST + "[rules]\nleast_sites = 4")).rules.least_sites == 4


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "the key 'name' is missing; add it"),
        (LEAST + "dat = 1", "unknown key 'dat' with value 1; did you mean 'data'?"),
        (
            LEAST + "[rules]\nleast = 1",
            "unknown key 'rules.least' with value 1; did you mean 'least_",
        ),
        (LEAST + "[rules]\nleast_sites = -3", "'rules.least_sites' is -3: Input should be greater"),
        (LEAST + "[rules]\nleast_count = true", "'rules.least_count' is True: "),
        (LEAST + "[rules]\nepsilon = nan", "'rules.epsilon' is nan: "),
        (
            LEAST + '[rules]\nmethods = ["magic"]',
            "'rules.methods' is 'magic': the methods are",
        ),
        (LEAST + "port = 70000", "'port' is 70000: "),
        (LEAST.replace(":9092", ""), "'superlink' is 'fed.example.org': write HOST:PORT"),
        (LEAST.replace("here", "../here"), "'name' is '../here': "),
        (LEAST.replace("here", "a|b"), "'name' is 'a|b': "),
        (LEAST.replace("here", "-rf"), "'name' is '-rf': "),
        (LEAST.replace("images", "a\\u0000b"), "'data' is 'a\\x00b': "),
        ("name = ", "is no TOML file"),
        ("\xff", "is no TOML file"),
        (None, "cannot be read"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path, text, reason):
    file = tmp_path / "site.toml"
    if text is not None:
        file.write_text(text, encoding="latin-1")
    with pytest.raises(ConfigError, match=re.escape(reason)) as refusal:
        Operator.read(file)
    assert str(refusal.value).startswith(str(file))
    assert "\n" not in str(refusal.value)
