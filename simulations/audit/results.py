"""What an audit found: plain values that a report reads."""

from dataclasses import dataclass

from simulations.audit.epsilon_bound import OneRun
from simulations.audit.membership import Membership


@dataclass(frozen=True)
class Reconstruction:
    """Cosine similarities of reconstructions and lesions, features centred.

    Attributes
    ----------
    seen : what the attacker saw, in words.
    lesions : number of lesions tried.
    median, high : median and 95th percentile over the lesions.
    chance, high_chance : the same of a reconstruction and another lesion.
    """

    seen: str
    lesions: int
    median: float
    high: float
    chance: float
    high_chance: float


@dataclass(frozen=True)
class AttackResults:
    """What the attacks found at so many sites, and what a reader must know of them."""

    one_run: OneRun
    membership: Membership
    reconstruction: list[Reconstruction]
    sites: int
    notes: list[str]


@dataclass(frozen=True)
class Audit:
    """Attacks on a run of a finished run's configuration.

    Attributes
    ----------
    epsilon : what the run claims; None where it promises nothing.
    unit : what is private, or what the attacks are on where nothing is.
    """

    run: str
    method: str
    epsilon: float | None
    delta: float
    trust: str
    unit: str
    synthetic: bool
    found: AttackResults

    @property
    def refuted(self) -> bool:
        """Whether the run is shown to keep less than it claims."""
        return self.epsilon is not None and self.found.one_run.bound > self.epsilon
