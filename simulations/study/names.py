"""Plain names of routes, of how data lie and of arms, for who has not read the study file."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from common.methods import METHODS
from common.task import Task
from simulations.study.cells import Arm
from simulations.study.definition import ALONE, NATURAL, POOLED, Spread, Study
from simulations.study.results import ArmResult

_CAPITALS = {"svm": "SVM", "rbf": "RBF", "lda": "LDA"}


@dataclass(frozen=True)
class Names:
    """The plain names of a study; no two routes and no two ways of data share one.

    Attributes
    ----------
    routes : by name in the study file.
    spreads : by name in the study file; of each site alone, the site's name takes its place.
    """

    routes: Mapping[str, str]
    spreads: Mapping[str, str]

    @classmethod
    def of(cls, study: Study, arms: Iterable[ArmResult]) -> Self:
        """Name what a study has."""
        listed = list(arms)
        return cls(
            _unique({route: _route(study, route) for route in study.routes}),
            _unique({spread: _spread(study, spread, listed) for spread in study.spreads}),
        )

    def way(self, arm: Arm) -> str:
        """Name how an arm's training data lie."""
        return f"{arm.site} alone" if arm.site else self.spreads[arm.spread]

    def arm(self, arm: Arm) -> str:
        """Name an arm."""
        share = "" if arm.scale == 1 else f", {arm.scale:.0%} of the lesions"
        return f"{self.routes[arm.route]}, {self.way(arm)}{share}"

    def ways(self, alike: Sequence[ArmResult]) -> str:
        """Name how the data of arms that are identical lie."""
        return " = ".join(self.way(result.arm) for result in alike)

    def alike(self, results: Sequence[ArmResult]) -> str:
        """Name arms of one route that are identical."""
        return f"{self.routes[results[0].arm.route]}, {self.ways(results)}"


def sentence(text: str) -> str:
    """Return a text that begins with a capital."""
    return text[:1].upper() + text[1:]


def diagnosis(task: Task, dx: str) -> str:
    """Name a diagnosis by the first of its full names."""
    return task.name(dx).partition(" or ")[0]


def _route(study: Study, route: str) -> str:
    config = study.config(route)
    method = METHODS[config.method]
    words = method.title.format_map(config.flat()) if method.title else method.name
    plain = " ".join(_CAPITALS.get(word, word) for word in words.replace("_", " ").split())
    return f"{plain} (ε = {config.epsilon:g})" if config.epsilon > 0 else plain


def _spread(study: Study, name: str, arms: Sequence[ArmResult]) -> str:
    return f"{_sources(study, name, arms)}{unlabelled(study.spreads[name])}"


def unlabelled(spread: Spread) -> str:
    """Say of what share of the lesions the diagnosis lacks, to follow how the data lie."""
    shares = spread.unlabelled
    if not isinstance(shares, dict):
        return f", {shares:.0%} unlabelled" if shares else ""
    listed = (site if share == 1 else f"{share:.0%} of {site}" for site, share in shares.items())
    return f", {' and '.join(listed)} unlabelled"


def _sources(study: Study, name: str, arms: Sequence[ArmResult]) -> str:
    spread = study.spreads[name]
    if spread.scheme in (POOLED, ALONE):
        return spread.scheme
    if spread.scheme == NATURAL:
        counts = [c["sites"] for r in arms if r.arm.spread == name for c in r.cells.values()]
        return _sites(max(counts)) if counts else "natural sites"
    return f"{spread.sites} uneven sites"


def _sites(number: int) -> str:
    return f"{number} site" + ("" if number == 1 else "s")


def _unique(names: Mapping[str, str]) -> dict[str, str]:
    """Add to names that are not the only ones what the study file calls them."""
    times = Counter(names.values())
    return {key: name if times[name] == 1 else f"{name} [{key}]" for key, name in names.items()}
