"""A study file in TOML: the routes, how the data lie, and how models are judged."""

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from common.config.fields import Codes, FullNames, Mappings
from common.config.run import RunConfig
from common.config.task_settings import task_of
from common.errors import ConfigError
from common.methods import METHODS
from common.storage.reading import read_text
from common.task import Task
from common.text import explain, matching

POOLED: Final = "pooled"
NATURAL: Final = "natural"
ALONE: Final = "alone"

DEFAULT_STUDY = Path(__file__).parent / "demo.toml"
"""For the built-in synthetic images: some minutes on two cores."""

BALANCED: Mapping[str, object] = {"imbalance": "weights", "imbalance_strength": 1.0}
"""Class weights n / (K n_k), the SVM's, for networks too: arms are to differ in the route alone."""

TASK = ("diagnoses", "malignant", "mapping", "names")
"""Settings of the task, which all arms share."""

_STUDYS_OWN = ("out", "sites", "cache", "seed", "test_fraction", "views", *TASK, *BALANCED)

Name = Annotated[
    str, matching(r"[A-Za-z0-9][\w-]*", "a name has letters, digits, - and _, the first is no mark")
]


def _ascending(scales: tuple[float, ...]) -> tuple[float, ...]:
    if list(scales) != sorted({*scales, 1.0}):
        raise ValueError("shares of the training lesions must ascend and end with 1.0")
    return scales


Scales = Annotated[
    tuple[Annotated[float, Field(gt=0, le=1)], ...], Field(min_length=1), AfterValidator(_ascending)
]


_Share = Annotated[float, Field(ge=0, le=1)]
_SomeShare = Annotated[float, Field(gt=0, le=1)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Spread(_Frozen):
    """How the training data lie.

    Attributes
    ----------
    scheme : all at one site; at the acquisition sources; at Dirichlet sites; at each source
        alone, an arm for each.
    sites, alpha : number and skew of Dirichlet sites.
    unlabelled : share of the training lesions of every site, or of each site that is named, that
        lose the diagnosis.
    """

    scheme: Literal["pooled", "natural", "dirichlet", "alone"]
    sites: int | None = Field(default=None, ge=2)
    alpha: float | None = Field(default=None, gt=0)
    unlabelled: _Share | Annotated[dict[str, _SomeShare], Field(min_length=1)] = 0.0

    @property
    def labelled(self) -> "Spread":
        """The same data with every diagnosis."""
        return self.model_copy(update={"unlabelled": 0.0})

    @model_validator(mode="after")
    def _complete(self) -> Self:
        given = [key for key in ("sites", "alpha") if getattr(self, key) is not None]
        if self.scheme == "dirichlet" and len(given) < 2:
            raise ValueError("scheme dirichlet needs 'sites' and 'alpha'")
        if self.scheme != "dirichlet" and given:
            raise ValueError(f"'{given[0]}' is for scheme dirichlet, not {self.scheme}")
        return self


class Arms(_Frozen):
    """Arms of one route.

    Attributes
    ----------
    spreads : names of how the data lie, an arm for each.
    curve : those of them that are trained on every scale, not on all lesions only.
    """

    route: Name
    spreads: tuple[Name, ...] = Field(min_length=1)
    curve: tuple[Name, ...] = ()


class Study(_Frozen):
    """A study file.

    Attributes
    ----------
    title : heads the report.
    seed : the seed of folds, sites, views, resamples and training.
    folds : number of folds of the cross-validation over whole lesions.
    views : augmented views of a training image, the same for all arms.
    diagnoses, malignant, mapping, names : the task, as of a run's settings; empty: that of the
        data.
    scales : shares of the training lesions for learning curves.
    margin : difference in balanced accuracy that does not matter.
    resamples : bootstrap resamples of the lesions.
    realtime : seconds for an image that a live view allows.
    routes : settings of each route, over the defaults.
    spreads : ways the data lie.
    arms : what is trained.
    """

    title: str = "Which route, and what does federation cost?"
    seed: int = Field(default=0, ge=0)
    folds: int = Field(default=5, ge=2)
    views: int = Field(default=4, ge=1)
    diagnoses: Codes = ()
    malignant: Codes = ()
    mapping: Mappings = ()
    names: FullNames = ()
    scales: Scales = (0.1, 0.25, 0.5, 1.0)
    margin: float = Field(default=0.03, gt=0, lt=1)
    resamples: int = Field(default=1000, ge=100)
    realtime: float = Field(default=0.1, gt=0)
    routes: dict[Name, dict[str, Any]] = Field(min_length=1)
    spreads: dict[Name, Spread] = Field(min_length=1)
    arms: tuple[Arms, ...] = Field(min_length=1)

    @property
    def task(self) -> Task:
        """The diagnoses that all arms tell apart."""
        return task_of(self.diagnoses, self.malignant, self.mapping, self.names)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for name in self.routes:
            self.config(name)
        pairs: set[tuple[str, str]] = set()
        for arms in self.arms:
            _refuse_unknown("route", [arms.route], self.routes)
            _refuse_unknown("spread", arms.spreads, self.spreads)
            _refuse_unknown("spread of a curve", arms.curve, arms.spreads)
            for pair in ((arms.route, spread) for spread in arms.spreads):
                if pair in pairs:
                    raise ValueError(f"the arm {' '.join(pair)} is there twice")
                pairs.add(pair)
        return self

    @classmethod
    def read(cls, file: Path) -> Self:
        """Read a study file.

        Raises
        ------
        ConfigError
            One line that names what is wrong.
        """
        try:
            values = tomllib.loads(read_text(file))
            return cls.model_validate(values)
        except ValidationError as error:
            known = {
                "": cls.model_fields,
                "spreads": Spread.model_fields,
                "arms": Arms.model_fields,
            }
            raise ConfigError(f"{file}: {explain(error, known)}") from error
        except ConfigError as error:
            raise ConfigError(f"{file}: {error}") from error
        except (OSError, ValueError) as error:
            raise ConfigError(f"{file} is no study file ({error})") from error

    def config(self, route: str) -> RunConfig:
        """Return the settings of a route's runs.

        Raises
        ------
        ConfigError
            If a setting is unknown, impossible, or one that all routes share.
        """
        own = self.routes[route]
        if taken := [key for key in _STUDYS_OWN if key in own]:
            raise ConfigError(f"route {route}: '{taken[0]}' is the study's, the same for all arms")
        # Lists become what a command line says, which every setting can be read from.
        values = {k: ",".join(map(str, v)) if isinstance(v, list) else v for k, v in own.items()}
        same: dict[str, object] = {"seed": self.seed, "views": self.views}
        same |= {key: getattr(self, key) for key in TASK}
        # A private gradient is clipped, whatever its weight: there the default shifts logits.
        method = METHODS.get(str(own.get("method", RunConfig().method)))
        if method and not method.trains:
            raise ConfigError(
                f"route {route}: method {method.name} trains no model, and a study compares models"
            )
        if method and not method.private and BALANCED.keys() <= method.settings:
            same |= BALANCED
        try:
            return RunConfig.read({**same, **values})
        except ConfigError as error:
            raise ConfigError(f"route {route}: {error}") from error


def _refuse_unknown(kind: str, names: Iterable[str], known: Iterable[str]) -> None:
    for name in names:
        if name not in known:
            raise ValueError(f"unknown {kind} '{name}' in arms; known are {', '.join(known)}")
