"""Names that may be used, and what may be printed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.text import is_host, is_site_name, printable

GOOD = [
    *("rosendahl", "vidir_modern", "site_00", "north", "A.O.U. Careggi", "Klinik-Süd", "3rd St."),
    *("Hôpital Saint-Louis (AP-HP), Paris", "St. Mary's", "Brigham & Women's", "_x", "x" * 100),
    *("病院", "अस्पताल", "Университет"),
]
BAD = [
    *(
        "",
        ".",
        "..",
        ".git",
        "-rf",
        " a",
        "a ",
        "a/b",
        "../a",
        "a|b",
        "<b>",
        "a`b",
        "a\nb",
        "a\x1b",
    ),
    *("a\0", "a\u202eb", "a\u200bb", "\udcff", "x" * 101, "all sites", "node 7", 'a"b', "a\\b"),
]
HOSTS = ["localhost", "fed.example.org", "a-b.c", "fed_server", "10.0.0.7", "::1", "fd00::7", "x1"]
NO_HOSTS = [
    *(
        "",
        "-rf",
        "a b",
        "a\n",
        "::1\n",
        "[::1]",
        "fe80::1%eth0",
        "fe80::1%\n",
        "a..b",
        "a.",
        "-a.b",
    ),
    *("256.1.1.1", "1.2.3", "Klinik-Süd", "x" * 64, ".".join(["x" * 60] * 5), "a/b", "a:1", "a\0"),
]


@pytest.mark.parametrize("name", GOOD)
def test_names_that_hospitals_have_are_accepted(name):
    assert is_site_name(name)


@pytest.mark.parametrize("name", BAD)
def test_names_that_could_harm_are_refused(name):
    assert not is_site_name(name)


@given(st.text())
def test_a_name_is_one_printable_part_of_a_path(text):
    if is_site_name(text):
        assert text.isprintable()
        assert not set('/\\|<>`"[]#*') & set(text)


@pytest.mark.parametrize("host", HOSTS)
def test_names_and_addresses_of_hosts_are_accepted(host):
    assert is_host(host)


@pytest.mark.parametrize("host", NO_HOSTS)
def test_what_is_no_host_is_refused(host):
    assert not is_host(host)


@given(st.text(st.characters()))
def test_what_is_printed_is_one_line_and_can_be_encoded(text):
    shown = printable(text)
    assert shown.isprintable()
    assert printable(shown) == shown
    shown.encode()
    if text.isprintable():
        assert shown == text
