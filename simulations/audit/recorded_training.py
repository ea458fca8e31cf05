"""Training over units in memory, by the code of site and coordinator, with all that is seen of it.

Noise and samples come from the operating system's randomness, as at a site, so figures differ
between audits. Nothing is released and no ledger is charged.
"""

from dataclasses import dataclass
from functools import cached_property, reduce
from operator import add
from typing import NamedTuple

import numpy as np

from client.methods.private import clipped
from common.arrays import Bools, Floats, Ints
from common.config.run import RunConfig
from common.privacy.linear import NoisySum, Units
from server.methods.private import learn
from server.privacy.descent import Arrays, Learned


@dataclass(frozen=True)
class AllSites:
    """Records, each a privacy unit by itself, and at which site each lies.

    Attributes
    ----------
    X : (n, d) one record for each.
    y : (n,) labels.
    site : (n,) numbers of their sites.
    sites : how many sites there are; some may have no unit.
    """

    X: Floats
    y: Ints
    site: Ints
    sites: int

    def __len__(self) -> int:
        return len(self.y)

    def select(self, chosen: Bools | Ints) -> "AllSites":
        """Return the units that are ``chosen``, a mask (n,) or numbers (m,), at the same sites."""
        return AllSites(self.X[chosen], self.y[chosen], self.site[chosen], self.sites)

    @cached_property
    def by_site(self) -> list[Units]:
        """Each site's records."""
        owns = (self.site == number for number in range(self.sites))
        return [Units.apart(self.X[own], self.y[own]) for own in owns]


class Observation(NamedTuple):
    """A question, what the coordinator sent with it, and the sums that it saw.

    Attributes
    ----------
    sent : what went with the question, by name, of the shapes that `clipped` takes.
    sums : of the question's shape; under ``trust=distributed`` the total alone, else one sum for
        each site.
    """

    question: str
    sent: Arrays
    sums: list[Floats]


def rehearse(config: RunConfig, units: AllSites) -> tuple[Learned, list[Observation]]:
    """Train on units, and keep what the coordinator saw."""
    seen: list[Observation] = []

    def total(question: str, step: int, shape: tuple[int, ...], arrays: Arrays) -> Floats:
        seen.append(ask(config, units, question, arrays))
        return np.asarray(sum(seen[-1].sums))

    return learn(total, units.X.shape[1], config), seen


def ask(config: RunConfig, units: AllSites, question: str, sent: Arrays) -> Observation:
    """Return what a coordinator sees of one question to all sites.

    Parameters
    ----------
    sent : what goes with the question, by name, of the shapes that `clipped` takes.
    """
    answers: list[NoisySum] = [
        clipped(config, own, question, sent).noisy(config.honest) for own in units.by_site
    ]
    if config.trust == "distributed":
        answers = [reduce(add, answers)]
    return Observation(question, sent, [answer.decoded() for answer in answers])
