"""Digests of this program's own sources, by which two machines tell that they run the same."""

import hashlib
import json
from collections.abc import Collection, Iterator
from functools import lru_cache
from importlib.util import find_spec
from itertools import chain
from pathlib import Path


def sources_digest(packages: Collection[str]) -> str:
    """Return the SHA-256 of packages' sources and data, by name and content, in hexadecimal."""
    digest = hashlib.sha256()
    for name, source in sorted(_sources(packages)):
        digest.update(json.dumps([name, len(source)]).encode() + source)
    return digest.hexdigest()


@lru_cache(maxsize=1)
def shared_digest() -> str:
    """Return the digest of what both sides of a federation compute with."""
    return sources_digest(["common"])


def _sources(packages: Collection[str]) -> Iterator[tuple[str, bytes]]:
    for package in packages:
        spec = find_spec(package)
        for folder in map(Path, (spec and spec.submodule_search_locations) or ()):
            for file in chain(folder.rglob("*.py"), folder.rglob("*.json")):
                yield file.relative_to(folder.parent).as_posix(), file.read_bytes()
