"""Everything that a study found, for reports and advice to read.

Like the values it is made of, it needs neither Flower nor PyTorch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NotRequired, TypedDict

from common.task import Task
from simulations.study.cost import ArmCost, RouteCost, arm_cost
from simulations.study.definition import POOLED, Study
from simulations.study.judging.paired_tests import Comparison
from simulations.study.names import Names
from simulations.study.results import ArmResult

FEDERATION = "against pooled data"
ROUTES = "between routes"
LABELS = "against all diagnoses"


class About(TypedDict):
    """What a study rests on; ``fingerprint`` is the SHA-256 of the data.

    ``unknown_lesions`` says what stands for lesions that the table does not name.

    ``command`` made the report; it is there where the report was written before.
    """

    data: str
    images: int
    lesions: int
    synthetic: bool
    unknown_lesions: NotRequired[str]
    fingerprint: str
    versions: dict[str, str]
    machine: str
    command: NotRequired[str]


@dataclass(frozen=True)
class Findings:
    """Everything that a report tells.

    Attributes
    ----------
    about : data, fingerprint, versions and machine.
    arms : in the order of the study file.
    comparisons : the comparisons of each arm with pooled data by the same route, of the routes
        with each other where the data lie alike, and of arms of which lesions lack the diagnosis
        with those over the same lesions that all have one.
    costs : the costs by route.
    """

    study: Study
    about: About
    arms: Sequence[ArmResult]
    comparisons: Sequence[Comparison]
    costs: Mapping[str, RouteCost]

    @property
    def task(self) -> Task:
        """The diagnoses that all arms tell apart."""
        return self.study.task

    @cached_property
    def names(self) -> Names:
        """The plain names of what the study has."""
        return Names.of(self.study, self.arms)

    @property
    def known(self) -> list[ArmResult]:
        """The arms with a model."""
        return [r for r in self.arms if r.metrics]

    @property
    def full(self) -> list[ArmResult]:
        """The arms with a model on all lesions."""
        return [r for r in self.known if r.arm.scale == 1]

    @property
    def whole(self) -> list[ArmResult]:
        """Of the arms with a model on all lesions, those that no site trains alone."""
        return [r for r in self.full if not r.arm.site]

    @property
    def pooled(self) -> list[ArmResult]:
        """The arms with a model on pooled data, of every scale."""
        return [r for r in self.known if self.scheme(r) == POOLED]

    def scheme(self, result: ArmResult) -> str:
        """Return how the data of an arm lie, as the study file says it."""
        return self.study.spreads[result.arm.spread].scheme

    def private(self, result: ArmResult) -> bool:
        """Tell whether an arm promises differential privacy."""
        return self.study.config(result.arm.route).epsilon > 0

    def comparison(self, first: ArmResult, second: ArmResult) -> Comparison | None:
        """Return the comparison of two arms, whichever is its first."""
        names = {first.arm.name, second.arm.name}
        return next((c for c in self.comparisons if {c.first, c.second} == names), None)

    def against_pooled(self, result: ArmResult) -> Comparison | None:
        """Return the comparison of an arm with the same route on pooled data."""
        gaps = (c for c in self.comparisons if c.family == FEDERATION)
        return next((c for c in gaps if c.first == result.arm.name), None)

    def standing(self, alike: Sequence[ArmResult]) -> str:
        """Say in a word how identical arms stand against pooled data by the same route."""
        if any(self.scheme(r) == POOLED for r in alike):
            return "identical" if len(alike) > 1 else "reference"
        gap = self.against_pooled(alike[0])
        return "-" if gap is None else self.verdict(gap)

    def by_name(self, name: str) -> ArmResult:
        """Return the arm that a comparison names."""
        return next(r for r in self.arms if r.arm.name == name)

    def verdict(self, c: Comparison) -> str:
        """Say in a word or two how a comparison's first arm stands against its second."""
        return "identical" if self.identical(c) else c.short

    def identical(self, c: Comparison) -> bool:
        """Tell whether the arms of a comparison are the same."""
        return self.by_name(c.first).identical(self.by_name(c.second))

    def cost(self, result: ArmResult) -> ArmCost | None:
        """Return the cost of an arm; None where nothing was measured."""
        return arm_cost(result, self.costs)


def groups(results: Sequence[ArmResult]) -> list[list[ArmResult]]:
    """Put arms of one route that are identical together, in the order of their first ones."""
    found: list[list[ArmResult]] = []
    for result in results:
        like = (
            group
            for group in found
            if group[0].arm.route == result.arm.route
            and group[0].arm.scale == result.arm.scale
            and group[0].identical(result)
        )
        group = next(like, None)
        if group is None:
            found.append([result])
        else:
            group.append(result)
    return found
