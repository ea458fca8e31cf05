"""How tests are spread over the workers of ``pytest -n auto``, which run beside each other."""

import os

import pytest
from xdist.scheduler import LoadFileScheduling

FLOWER, STUDY = "Flower", "study"

TOGETHER = {
    # They start Flower's processes and wait for them. One federation at a time: two would slow
    # each other down until an answer comes too late.
    "tests/simulations/runtimes/test_deployment.py": FLOWER,
    "tests/simulations/runtimes/test_hosts.py": FLOWER,
    "tests/simulations/runtimes/test_runtimes.py": FLOWER,
    "tests/simulations/runtimes/test_flower_run.py": FLOWER,
    # They look at one study, which takes long.
    "tests/simulations/study/test_comparison.py": STUDY,
    "tests/simulations/study/test_browser.py": STUDY,
}
"""Modules whose tests one worker runs, by the name of what they share."""

LONG = (*TOGETHER,)
"""Modules that are begun first, lest one worker works on long after the others."""


class ByModule(LoadFileScheduling):
    """Gives the tests of a module to one worker, which makes the module's fixtures once."""

    def _split_scope(self, nodeid: str) -> str:
        module = super()._split_scope(nodeid)
        return TOGETHER.get(module, module)


def long_first(items: list[pytest.Item]) -> None:
    """Order tests by the modules that they are in."""
    place = {module: number for number, module in enumerate(LONG)}
    items.sort(key=lambda item: place.get(item.nodeid.partition("::")[0], len(LONG)))


def number_of_workers() -> int:
    """Return one more than there are cores: who waits for Flower leaves a core to others."""
    return len(os.sched_getaffinity(0)) + 1
