"""Checks whether a hospital is ready to take part; each finding says what to do."""

import platform
import shutil
import ssl
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import NamedTuple

import numpy as np
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from packaging.requirements import Requirement

from client.egress.log import verified
from client.operator import clock, pins
from client.operator.picture_secret import read_secret
from client.operator.server_certificate import address, server_certificate
from client.operator.site_rules import Operator
from client.secure.identity import Identity, read_keys
from client.site import Site
from client.state import STATE
from common.config.run import RunConfig
from common.data.check import check as check_data
from common.data.dataset import Dataset
from common.errors import FedDermError, described
from common.methods import METHODS
from common.site_folder import AUTHORITY, NODE_KEY
from common.storage.reading import read_bytes
from common.text import printable
from common.wire.certificates import NOTICE_DAYS, announcement, days_left
from common.wire.secure_sums import LEAST_SITES

_CACHE_BYTES, _STATE_BYTES = 2e9, 1e8
"""Free space that features and logs of some thousand images take."""


class Finding(NamedTuple):
    """One line of a check.

    Attributes
    ----------
    what : what was checked.
    good : whether it is as it should be.
    says : the result, and what to do.
    """

    what: str
    good: bool
    says: str

    def __str__(self) -> str:
        return printable(f"{'ok     ' if self.good else 'PROBLEM'}  {self.what:10} {self.says}")


def check(folder: Path, operator: Operator) -> Iterator[Finding]:
    """Yield the findings on a hospital's folder, its operator's file and the server."""
    looks: dict[str, Callable[[], Finding]] = {
        "versions": _versions,
        "data": lambda: _data(operator),
        "disk": lambda: _disk(operator),
        "keys": lambda: _keys(folder),
        "rules": lambda: _rules(operator),
        "peers": lambda: _peers(operator),
        "server": lambda: _server(folder, operator),
        "clock": lambda: _clock(folder, operator),
        "log": lambda: _log(operator),
    }
    for what, look in looks.items():
        try:
            yield look()
        except (FedDermError, OSError) as error:
            yield Finding(what, False, described(error))


def _versions() -> Finding:
    present, wrong = [f"Python {platform.python_version()}"], []
    try:
        wanted = [Requirement(line) for line in requires("fedderm") or []]
    except PackageNotFoundError:
        return Finding("versions", False, "this program is not installed; `pip install` it")
    for each in wanted:
        if each.marker is not None and not each.marker.evaluate({"extra": ""}):
            continue
        try:
            has = version(each.name)
        except PackageNotFoundError:
            has = "missing"
        if each.name in ("flwr", "numpy", "torch"):
            present.append(f"{each.name} {has}")
        if has == "missing" or not each.specifier.contains(has, prereleases=True):
            wrong.append(f"{each.name} is {has}, install {each.specifier}")
    return Finding("versions", not wrong, "; ".join(wrong) or ", ".join(present))


def _data(operator: Operator) -> Finding:
    report = check_data(operator.data)
    if report.diagnosis_missing:
        says = f"{report.undiagnosed} images, none with a diagnosis: this site takes part in"
        return Finding("data", True, f"{says} fine-tuning with 'unlabelled_weight' alone")
    if report.fatal:
        advice = f"; `fedderm data check {operator.data}` shows all"
        why = "; ".join(map(str, report.fatal))
        return Finding("data", False, f"{operator.data}: {why}{advice}")
    total = report.total
    return Finding("data", True, f"{total.images} images of {total.lesions} lesions")


def _disk(operator: Operator) -> Finding:
    lacks, says = [], []
    for name, folder, least in (
        ("cache", operator.cache, _CACHE_BYTES),
        ("state", operator.state, _STATE_BYTES),
        ("seals", operator.seals.expanduser(), 0.0),
    ):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder):  # it can be written
            free = shutil.disk_usage(folder).free
        says.append(f"{name} {free / 1e9:.1f} GB free")
        if free < least:
            lacks.append(f"{folder} has {free / 1e9:.1f} GB free; make it {least / 1e9:g}")
    if operator.seals.expanduser().is_relative_to(operator.state):
        lacks.append("'seals' lies in 'state'; put it where no backup restores both")
    return Finding("disk", not lacks, "; ".join(lacks) or ", ".join(says))


def _keys(folder: Path) -> Finding:
    key = folder / NODE_KEY
    if not key.exists():
        return Finding("keys", False, f"{key} is missing; make it by `fedderm site key {folder}`")
    mode = key.stat().st_mode & 0o077
    if mode:
        return Finding("keys", False, f"others may read {key}; `chmod 600 {key}`")
    try:
        load_ssh_private_key(read_bytes(key), None)
    except ValueError as error:
        advice = f"remove it, and make one by `fedderm site key {folder}`"
        return Finding("keys", False, f"{key} is no key ({error}); {advice}")
    soon = announcement(folder / AUTHORITY)
    return Finding("keys", soon is None, soon or "node key for its owner only, authority valid")


def _rules(operator: Operator) -> Finding:
    """Find rules that refuse every run, whatever the coordinator configures."""
    rules = operator.rules
    if not rules.methods:
        return Finding("rules", False, "no method is allowed; name one in 'methods'")
    private = [method for method in rules.methods if METHODS[method].private]
    if not rules.epsilon and len(private) == len(rules.methods):
        says = "only private methods are allowed, and 'epsilon' is 0; set what they may spend"
        return Finding("rules", False, says)
    if rules.picture_secret is not None:
        read_secret(rules.picture_secret)
    pins.check(Site(operator.data, RunConfig(weights=operator.weights), operator))
    lesions = Dataset.open(operator.data).by_lesion.labels
    if private and len(lesions) > rules.expected_lesions:
        says = f"there are {len(lesions)} lesions, 'expected_lesions' is {rules.expected_lesions}"
        return Finding("rules", False, f"{says}; raise it, and lower 'delta' to suit")
    least = int(np.unique(lesions, return_counts=True)[1].min())
    in_secure_sums = rules.peers is not None
    if least < rules.least_lesions and not in_secure_sums and not (private and rules.epsilon):
        says = f"a class has {least} lesions, 'least_lesions' is {rules.least_lesions}"
        return Finding("rules", False, f"{says}: without 'peers' no training's sum could leave")
    return Finding("rules", True, f"allowed are {', '.join(rules.methods)}")


def _peers(operator: Operator) -> Finding:
    own = Identity.begun(operator.state).public()
    if operator.rules.peers is None:
        good = not operator.rules.least_sites
        says = "none named, so no secure sums" + ("" if good else "; 'least_sites' wants them")
        return Finding("peers", good, says)
    known = read_keys(operator.rules.peers)
    if known.get(operator.name) != own:
        line = f"{operator.name}\t{own.hex()}"
        return Finding("peers", False, f"{operator.rules.peers} lacks this site's line: {line}")
    says = f"{len(known)} sites are trusted: {', '.join(sorted(known))}"
    if len(known) < (least := max(LEAST_SITES, operator.rules.least_sites)):
        says += f"; a secure sum is over {least} or more: add the lines of the others"
        return Finding("peers", False, says)
    return Finding("peers", True, says)


def _server(folder: Path, operator: Operator) -> Finding:
    try:
        left = days_left(server_certificate(folder, operator))
    except ssl.SSLError as error:
        advice = "it is not the server that this site's ca.crt is for; ask the coordinator"
        return Finding("server", False, f"{operator.superlink}: {error}; {advice}")
    except OSError as error:
        advice = f"is it up, and may this machine reach port {address(operator)[1]} there?"
        return Finding(
            "server", False, f"{operator.superlink} cannot be reached ({error}); {advice}"
        )
    says = f"{operator.superlink} is reached, its certificate is valid for {left:.0f} days"
    return Finding("server", left >= NOTICE_DAYS, says)


def _clock(folder: Path, operator: Operator) -> Finding:
    try:
        ahead = clock.seconds_ahead(folder, operator)
    except OSError:
        return Finding("clock", False, "not compared, as the server cannot be asked")
    return Finding("clock", abs(ahead) < clock.MOST_SECONDS, clock.in_words(ahead))


def _log(operator: Operator) -> Finding:
    STATE.upgrade(operator.state)
    return Finding("log", True, f"of what left: {verified(operator)}")
