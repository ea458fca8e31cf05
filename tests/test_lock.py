"""What is installed is what ``constraints.txt`` names, to the last dependency."""

from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

LOCK = Path(__file__).parents[1] / "constraints.txt"


def needed(name: str, extras: frozenset[str], known: dict[str, str]) -> dict[str, str]:
    """Return the installed versions of a distribution's dependencies, by their names."""
    for line in distribution(name).requires or ():
        requirement = Requirement(line)
        markers = [{"extra": extra} for extra in extras or {""}]
        if requirement.marker and not any(map(requirement.marker.evaluate, markers)):
            continue
        key = canonicalize_name(requirement.name)
        version = distribution(key).version.partition("+")[0]  # torch's names its build
        if key not in known or requirement.extras:
            known[key] = version
            needed(key, frozenset(requirement.extras), known)
    return known


def test_what_is_installed_is_locked():
    locked = dict(line.split("==") for line in LOCK.read_text().split())
    locked = {canonicalize_name(name): version for name, version in locked.items()}
    installed = needed("fedderm", frozenset({"dev"}), {})
    assert len(installed) > 50
    assert installed.items() <= locked.items(), "run `make lock`"
