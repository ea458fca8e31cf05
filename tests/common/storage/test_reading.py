"""Only a regular file is read."""

import os
import socket
from pathlib import Path

import pytest

from common.storage.reading import read_bytes, read_text


def test_what_is_no_file_is_an_error_and_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    os.mkfifo("pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        for path in ("pipe", "socket", tmp_path, "/dev/zero", "none", "a\0b"):
            with pytest.raises(OSError, match=r"\w"):
                read_bytes(Path(path))


def test_a_file_is_read_through_a_link_and_without_its_mark(tmp_path):
    (tmp_path / "file").write_bytes("\ufeffé".encode())
    (tmp_path / "link").symlink_to("file")
    assert read_text(tmp_path / "link") == "é"
