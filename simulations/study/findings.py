"""Everything that a study found, for reports and advice to read.

Like the values it is made of, it needs neither Flower nor PyTorch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

from simulations.study.cost import ArmCost, RouteCost, arm_cost
from simulations.study.definition import POOLED, Study
from simulations.study.paired_tests import Comparison
from simulations.study.results import ArmResult

FEDERATION = "against pooled data"
ROUTES = "between routes"


class About(TypedDict):
    """What a study rests on; ``fingerprint`` is the SHA-256 of the data."""

    data: str
    images: int
    lesions: int
    synthetic: bool
    fingerprint: str
    versions: dict[str, str]
    machine: str


@dataclass(frozen=True)
class Findings:
    """Everything that a report tells.

    Attributes
    ----------
    about : data, fingerprint, versions and machine.
    arms : in the order of the study file.
    comparisons : the comparisons of each arm with pooled data by the same route, and of the routes
        with each other where the data lie alike.
    costs : the costs by route.
    """

    study: Study
    about: About
    arms: Sequence[ArmResult]
    comparisons: Sequence[Comparison]
    costs: Mapping[str, RouteCost]

    @property
    def full(self) -> list[ArmResult]:
        """The arms with a model on all lesions."""
        return [r for r in self.arms if r.resampled and r.arm.scale == 1]

    @property
    def pooled(self) -> list[ArmResult]:
        """The arms with a model on pooled data, of every scale."""
        spreads = self.study.spreads
        return [r for r in self.arms if r.resampled and spreads[r.arm.spread].scheme == POOLED]

    def cost(self, result: ArmResult) -> ArmCost | None:
        """Return the cost of an arm; None where nothing was measured."""
        return arm_cost(result, self.costs)
