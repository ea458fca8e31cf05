"""How tests are spread over the workers of ``pytest -n auto``, which run beside each other."""

import os

import pytest
from xdist.scheduler import LoadFileScheduling

_RUNTIMES, _STUDY = "runtimes", "study"

TOGETHER = {
    # They start Flower's processes and wait for them: one after the other, as too many at once
    # slow each other down until an answer comes too late.
    "tests/simulations/runtimes/test_runtimes.py": _RUNTIMES,
    "tests/simulations/runtimes/test_flower_run.py": _RUNTIMES,
    "tests/simulations/runtimes/test_hosts.py": _RUNTIMES,
    # They look at one study, which takes long.
    "tests/simulations/study/test_comparison.py": _STUDY,
    "tests/simulations/study/test_browser.py": _STUDY,
}
"""Modules whose tests one worker runs, by the name of what they share."""

LONG = (
    "tests/simulations/runtimes/test_deployment.py",  # it waits most
    *TOGETHER,
    "tests/server/federation/test_fault_plans.py",
    "tests/simulations/attacks/test_trials.py",
    "tests/simulations/runtimes/test_exactness.py",
    "tests/test_readme.py",
    "tests/client/egress/test_adversary.py",
    "tests/server/methods/test_finetune_restart.py",
    "tests/server/methods/test_finetune.py",
    "tests/client/privacy/test_audit.py",
    "tests/common/privacy/test_accounting.py",
)
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
