"""The configuration of a run: read once, at the edge, into one typed frozen object."""

from collections.abc import Mapping
from functools import cache
from types import new_class
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from common.answers.operating import targets_of
from common.config.base import CommonConfig
from common.config.duplicates import DuplicatesConfig
from common.config.fields import fill_in
from common.config.finetune import BEST, FinetuneConfig
from common.config.imbalance import BalanceConfig
from common.config.metadata import FusionConfig, MetadataConfig, MetadataScaleConfig
from common.config.parent import ParentConfig
from common.config.private import PrivateConfig
from common.config.progress import ProgressConfig
from common.config.robust import CROSSCHECK, RobustConfig
from common.config.screening import ScreeningConfig
from common.config.svm import SvmConfig
from common.config.task_settings import task_of
from common.config.validate import ValidateConfig
from common.errors import ConfigError
from common.features.augment import STRONG, Augmentation
from common.features.extract import FeatureSpec
from common.features.transform import Transform
from common.methods import METHODS, Method
from common.task import Task
from common.text import explain


@cache
def dependent() -> frozenset[str]:
    """Return the settings whose defaults depend on others; they may be left empty."""
    by_method = (key for m in METHODS.values() for key in (*m.defaults, *m.going_on))
    return frozenset((*by_method, *BEST))


class RunConfig(
    RobustConfig,
    PrivateConfig,
    FinetuneConfig,
    SvmConfig,
    BalanceConfig,
    MetadataConfig,
    MetadataScaleConfig,
    FusionConfig,
    ScreeningConfig,
    ValidateConfig,
    DuplicatesConfig,
    ParentConfig,
    ProgressConfig,
    CommonConfig,
):
    """Everything that decides a run's model, and the rules it runs under.

    Field names are the keys of a configuration file, of ``key=value`` on the command line
    and of ``flwr run --run-config``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, values: Any) -> Any:
        """Give keys that are left empty their method's defaults."""
        name = str(values.get("method", cls.model_fields["method"].default))
        if name in METHODS:
            if values.get("parent", "") not in ("", None):
                values = fill_in(values, METHODS[name].going_on)
            values = fill_in(values, METHODS[name].defaults)
        # Of these some are left empty for all methods, and not every method has a use for each.
        return {k: v for k, v in values.items() if not (k in dependent() and v == "")}

    @model_validator(mode="after")
    def _enough_views(self) -> Self:
        if METHODS[self.method].trains_network and not self.views:
            raise ValueError("'views' is 0; fine-tuning trains on augmented views, at least 1")
        return self

    @model_validator(mode="after")
    def _offered(self) -> Self:
        for key, values in METHODS[self.method].choices.items():
            if (value := getattr(self, key)) not in values:
                raise ValueError(
                    f"'{key}' is {value}, which method {self.method} does not offer; "
                    f"set {', '.join(values)}"
                )
        return self

    @model_validator(mode="after")
    def _opens_all(self) -> Self:
        fixed = METHODS[self.method].going_on.get("stages", self.stages)
        if self.parent is not None and self.stages != fixed:
            raise ValueError(
                f"'stages' is {','.join(self.stages)}, but what a stage freezes is the pretrained "
                f"network, not that of 'parent'; set stages={','.join(fixed)}"
            )
        return self

    @model_validator(mode="after")
    def _one_size(self) -> Self:
        private = METHODS[self.method].private
        if private and self.metadata and len(self.metadata_scale) != 1:
            raise ValueError(
                f"'metadata_scale' is {flat(self.metadata_scale)}, but a private run chooses "
                "nothing by its lesions, which would have to be paid for; give one value"
            )
        return self

    @model_validator(mode="after")
    def _one_task(self) -> Self:
        try:
            assert self.task
        except ConfigError as error:
            raise ValueError(str(error)) from error
        return self

    @model_validator(mode="after")
    def _same_sites(self) -> Self:
        if self.secure and self.fraction != 1:
            raise ValueError(
                f"'fraction' is {self.fraction:g}, but secure sums are over all sites: those over "
                "some could be subtracted; set fraction=1"
            )
        return self

    @model_validator(mode="after")
    def _weighed_in_rounds(self) -> Self:
        used = METHODS[self.method].settings
        if self.balance_groups and {"balance_groups", "head"} <= used and self.head != "svm":
            raise ValueError(
                f"'balance_groups' is {self.balance_groups}, but head {self.head} is solved from "
                "moments in which all images weigh alike; set head=svm"
            )
        return self

    @model_validator(mode="after")
    def _defence_possible(self) -> Self:
        if not self.defended or "robust" not in METHODS[self.method].settings:
            return self
        key = "norm_bound" if self.robust == "none" else "robust"
        if self.secure:
            raise ValueError(
                f"'{key}' is {getattr(self, key)}, but under secure sums the coordinator sees no "
                "site's change; a site would have to prove the norm of its own, which is not "
                f"implemented: set secure=false or {key}={type(self).model_fields[key].default}"
            )
        if self.strategy == "qfedavg":
            raise ValueError(
                f"'{key}' is {getattr(self, key)}, but with strategy qfedavg a site that claims a "
                "large loss pulls the most, which no rule can check: set strategy=fedavg or "
                f"{key}={type(self).model_fields[key].default}"
            )
        if self.optimizer != "sgd":
            raise ValueError(
                f"'{key}' is {getattr(self, key)}, but adamw divides steps by averaged mean "
                "squares; a defence that leaves outliers out makes these too small, and the "
                "weights explode: set optimizer=sgd, and lr to suit"
            )
        if self.robust == CROSSCHECK and (self.momentum or self.strategy == "scaffold"):
            raise ValueError(
                "'robust' is crosscheck, by which sites judge changes of weights alone; what else "
                "is averaged could be false: set momentum=0 and another strategy than scaffold"
            )
        if self.robust == CROSSCHECK and min(self.local_epochs) < 1:
            raise ValueError(
                f"'local_epochs' is {min(self.local_epochs):g}, but with 'robust' crosscheck sites "
                "judge each other by the changes of one round, which tell nothing after a few "
                "steps; set it to 1 or more"
            )
        if self.robust != "none" and self.patience:
            raise ValueError(
                f"'patience' is {self.patience}, but what sites say of their validation lesions "
                "may be false, too: with 'robust' the last round is kept; set patience=0"
            )
        return self

    @model_validator(mode="after")
    def _screening_possible(self) -> Self:
        if not self.screening_by or "screening_by" not in METHODS[self.method].settings:
            return self
        why = ""
        if "head" in METHODS[self.method].settings and self.head != "svm":
            why = f"head {self.head} has no calibration lesions; set head=svm"
        elif self.hostile:
            why = "with 'hostile' sites nothing is calibrated on lesions; set hostile=0"
        elif not targets_of(self.task):
            why = "no screening rule is for these diagnoses; set 'malignant' to some of them"
        if why:
            raise ValueError(f"'screening_by' is {self.screening_by}, but {why}")
        return self

    @classmethod
    def read(cls, values: Mapping[str, object]) -> "RunConfig":
        """Check values and return the configuration.

        Raises
        ------
        ConfigError
            One line that names the first wrong key, its value and what is allowed.
        """
        try:
            config = complete_class().model_validate(dict(values))
        except ValidationError as error:
            raise ConfigError(explain(error, {"": complete_class().model_fields})) from error
        _refuse_unused(config)
        return config

    @classmethod
    def read_settings(cls, values: Mapping[str, object]) -> "RunConfig":
        """Check the settings of a user who says beside them where to read and write.

        Raises
        ------
        ConfigError
            As of :meth:`read`, and if they say it.
        """
        for key in ("out", "sites"):
            if key in values:
                raise ConfigError(
                    f"'{key}' is no setting here: DIR and --out say where to read and write, in "
                    "Python 'data' and 'out'"
                )
        return cls.read(values)

    def flat(self) -> dict[str, str | int | float]:
        """Return what the run's method uses, as Flower's run configuration holds it."""
        return {key: flat(getattr(self, key)) for key in settings_of(METHODS[self.method])}

    @property
    def task(self) -> Task:
        """The diagnoses that the run's model tells apart."""
        return task_of(self.diagnoses, self.malignant, self.mapping, self.names)

    @property
    def feature_spec(self) -> FeatureSpec:
        """What the features of this run depend on."""
        return FeatureSpec(
            backbone=self.backbone,
            weights=self.weights,
            size=self.size,
            levels=self.levels,
            views=self.views,
            predictions=self.predictions,
            seed=self.seed,
            augmentation=STRONG if self.augmentation == "strong" else Augmentation(),
            transform=Transform(self.resolution, self.colour),
        )


def complete_class() -> type[RunConfig]:
    """Return the class of configurations that has the settings of all listed methods."""
    families = (family for method in METHODS.values() for family in method.families)
    return _with(tuple(dict.fromkeys(f for f in families if not issubclass(RunConfig, f))))


def settings_of(method: Method) -> list[str]:
    """Return the names of the settings that a method uses, those of all methods first."""
    used = (CommonConfig.model_fields.keys() | method.settings) - method.refused.keys()
    return [name for name in complete_class().model_fields if name in used]


@cache
def _with(families: tuple[type[BaseModel], ...]) -> type[RunConfig]:
    if not families:
        return RunConfig
    return new_class("RunConfig", (*families, RunConfig))


def _refuse_unused(config: RunConfig) -> None:
    """Refuse settings that were changed and that the run's method does not use.

    Raises
    ------
    ConfigError
        If there is one.
    """
    method = METHODS[config.method]
    used, usual = settings_of(method), type(config)(method=config.method)
    odd = [k for k, value in config if k not in used and value != getattr(usual, k)]
    # First those of which most is to be said.
    for key in sorted(odd, key=lambda key: key not in method.refused):
        raise ConfigError(f"'{key}' is {flat(getattr(config, key))}, but {method.refusal(key)}")


def flat(value: object) -> str | int | float:
    """Return a setting's value as Flower's run configuration holds it."""
    if value is None:
        return ""
    if isinstance(value, tuple):
        return ",".join(str(item) if isinstance(item, str) else repr(item) for item in value)
    return value if isinstance(value, int | float) else str(value)
