"""What must hold after a run, whatever went wrong in it."""

import re
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path

from client.egress.log import lines_of
from client.operator.site_rules import Operator
from client.privacy.ledger import FILE, Ledger
from common.errors import FedDermError
from common.privacy.accounting import SampledGaussian
from server.run.folder import MODEL_FILE
from simulations.runtimes.loopback import Loopback

_CLEAR = re.compile(r"(\w+) \[[\d, ]*\](?: norm \S+)?(?=,|$)")
"""A record in a line of an egress log that is not hidden in a secure sum."""

_OPEN = {"masked"}
"""Records that may leave by themselves."""

_AT_EACH_START = {"join", "secure.key", "secure.peers", "prepare", "close"}
"""Questions whose answers hold no sum that could be kept."""


class BrokenError(FedDermError):
    """Something that must hold does not."""


def same_model(federation: Loopback, out: str, expected: bytes) -> None:
    """Check that a run's model is, bit for bit, the expected one.

    Raises
    ------
    BrokenError
        If not.
    """
    if (federation.coordinator / out / MODEL_FILE).read_bytes() != expected:
        raise BrokenError(f"the model of {out} is not that of the run in process")


def asked(federation: Loopback, out: str) -> Counter[str]:
    """Count the sums of a run that all sites answered for, by their questions."""
    rounds = federation.rounds(out)
    names = (entry["question"] for entry in rounds if entry["answered"] and not entry["faults"])
    return Counter(name for name in names if name not in _AT_EACH_START)


def nothing_leaked(federation: Loopback) -> Iterator[str]:
    """Verify every site's egress log; yield what it says of itself.

    Raises
    ------
    BrokenError
        If a record left without a mask.
    DataError
        If a log is not what was written.
    """
    for name in federation.sites:
        *lines, verified = lines_of(Operator.read(federation.site_file(name)))
        for line in lines:
            if odd := set(_CLEAR.findall(line)) - _OPEN:
                raise BrokenError(f"'{min(odd)}' left {name} as it is: {line}")
        yield f"{name}: {verified}"


def nothing_named(federation: Loopback, names: Collection[str]) -> None:
    """Check that no image or lesion is named in what the coordinator has, nor in a process's log.

    Raises
    ------
    BrokenError
        If one is.
    """
    named = re.compile("|".join(map(re.escape, names)).encode())
    for folder in (federation.coordinator, federation.logs):
        for file in filter(Path.is_file, folder.rglob("*")):
            if found := named.search(file.read_bytes()):
                raise BrokenError(f"{file} names '{found[0].decode()}'")


def paid_once(federation: Loopback, costs: Collection[SampledGaussian], runs: int) -> None:
    """Check that each ledger holds what so many private runs cost, once.

    Raises
    ------
    BrokenError
        If one does not.
    """
    for name in federation.sites:
        operator = Operator.read(federation.site_file(name))
        folder = operator.state / "ledger"
        begun = (folder / FILE).exists()
        history = Ledger(folder, operator.seals).account().history if begun else []
        if history != [*costs] * runs:
            raise BrokenError(f"the ledger of {name} has {len(history)} entries for {runs} runs")
