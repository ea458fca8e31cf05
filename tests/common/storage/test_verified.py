"""What was not written is not read: by any flipped bit, lost end or other file."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.storage.verified import (
    DamagedError,
    map_array,
    read_arrays,
    read_json,
    read_verified,
    write_array,
    write_arrays,
    write_json,
    write_verified,
)

ARRAY = np.arange(12.0).reshape(3, 4)
FIELDS = {"a": 1.5, "b": [True, None, "é"], "c": {"d": -0.1}}

KINDS: dict[str, tuple[Callable[[Path], None], Callable[[Path], Any]]] = {
    "bytes": (lambda path: write_verified(path, b"some bytes"), read_verified),
    "array": (lambda path: write_array(path, ARRAY), lambda path: map_array(path).tolist()),
    "json": (lambda path: write_json(path, FIELDS), read_json),
    "arrays": (
        lambda path: write_arrays(path, {"x": ARRAY, "n": np.array(3)}, FIELDS),
        lambda path: (
            {n: a.tolist() for n, a in read_arrays(path)[0].items()},
            read_arrays(path)[1],
        ),
    ),
}
EXPECTED = {
    "bytes": b"some bytes",
    "array": ARRAY.tolist(),
    "json": FIELDS,
    "arrays": ({"x": ARRAY.tolist(), "n": 3}, FIELDS),
}


@pytest.mark.parametrize("kind", KINDS)
@given(place=st.integers(0, 2**20), bit=st.integers(0, 8))
def test_what_was_written_comes_back_and_nothing_else(tmp_path_factory, kind, place, bit):
    path = tmp_path_factory.mktemp("verified") / "file"
    write, read = KINDS[kind]
    with pytest.raises(FileNotFoundError):
        read(path)
    write(path)
    assert read(path) == EXPECTED[kind]
    content = bytearray(path.read_bytes())
    place %= len(content)
    if bit == 8:
        del content[place:]
    else:
        content[place] ^= 1 << bit
    path.write_bytes(content)
    words = f"{path} is damaged ("
    try:
        assert read(path) == EXPECTED[kind]  # a space of JSON may become another one
    except DamagedError as error:
        words = str(error)
    assert words.startswith(f"{path} is damaged (")
    assert words.isprintable()


def test_who_reads_while_others_write_reads_a_whole_file(tmp_path: Path) -> None:
    contents = [bytes([number]) * 10**5 for number in range(4)]
    write_verified(tmp_path / "file", contents[0])
    with ThreadPoolExecutor(5) as pool:
        writing = [
            pool.submit(lambda c=content: [write_verified(tmp_path / "file", c) for _ in range(20)])
            for content in contents
        ]
        while not all(each.done() for each in writing):
            assert read_verified(tmp_path / "file") in contents
    assert [file.name for file in tmp_path.iterdir()] == ["file"]
