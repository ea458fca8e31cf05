"""The configuration of a run: read once, at the edge, into one typed frozen object."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from common.config.fields import FilePath, OptionalPath, absent, fill_in
from common.config.finetune import FinetuneConfig
from common.config.private import PrivateConfig
from common.config.robust import RobustConfig
from common.config.svm import SvmConfig
from common.errors import ConfigError
from common.features.augment import PREDICTION_VIEWS
from common.features.extract import FeatureSpec
from common.features.pretrained import DEFAULT_BACKBONE

_WEIGHTS = {"imbalance": "weights", "imbalance_strength": 0.7}
_LOGITS = {"imbalance": "logits", "imbalance_strength": 1.0}

METHOD_DEFAULTS: Mapping[str, Mapping[str, object]] = {
    "svm": {"size": 224, "folds": 3, **_WEIGHTS},
    "finetune": {"size": 128, "folds": 10, **_WEIGHTS},
    "private": {"size": 224, "folds": 3, **_LOGITS},
    "private_finetune": {"size": 128, "folds": 3, **_LOGITS},
}
"""Values of keys that are left empty, where the methods want different ones."""

_NOISE = "a private method's noise is made for the sum; each site's alone would drown a vote"

_UNDEFENDED: Mapping[str, str] = {
    "svm": "an exact SVM is the sum over all sites, of which none can be outvoted",
    "private": _NOISE,
    "private_finetune": _NOISE,
}
"""Why methods have no defence by vote."""


class CommonConfig(BaseModel):
    """The rules a run goes by, and what all methods see of the images."""

    out: OptionalPath = Field(default=None, description="run folder to write")
    sites: OptionalPath = Field(default=None, description="folder with one folder per site")
    cache: Annotated[FilePath, BeforeValidator(absent)] = Field(
        default=Path("~/.cache/fedderm"), description="folder for features, shared by all runs"
    )
    seed: int = Field(default=0, ge=0, description="seed of splits, views and random features")

    method: Literal["svm", "finetune", "private", "private_finetune"] = Field(
        default="svm",
        description="how the sites train; svm and finetune send exact sums, which may tell of"
        " single lesions whoever crafts questions: only the private methods' noise hides them",
    )
    backbone: str = Field(
        default=DEFAULT_BACKBONE,
        pattern=r"^[\w.-]{1,100}$",
        description="pretrained network, by its name in timm",
    )
    weights: OptionalPath = Field(default=None, description="its weights file, if not built in")
    size: int = Field(
        default=224, ge=32, le=2048, description="height and width of a view in pixels"
    )
    levels: int = Field(default=3, ge=0, le=100, description="depths pooled beside the last one")
    views: int = Field(default=4, ge=0, le=1000, description="augmented views of a training image")
    predictions: int = Field(
        default=4, ge=1, le=PREDICTION_VIEWS, description="views averaged at prediction"
    )

    folds: int = Field(
        default=3,
        ge=2,
        le=1000,
        description="folds of the training lesions: C is chosen on each, rounds on the first",
    )
    test_fraction: float = Field(
        default=0.2, ge=0, lt=1, description="share of lesions held out where no split is given"
    )
    quorum: int = Field(default=1, ge=1, description="least number of sites that a model needs")
    expected: int = Field(default=1, ge=1, description="sites waited for before the start")
    secure: bool = Field(
        default=False, description="the coordinator learns sums over all sites, no site's share"
    )
    timeout: float = Field(
        default=3600.0,
        gt=0,
        description="seconds of silence after which sites that owe an answer are left out",
    )


class RunConfig(RobustConfig, PrivateConfig, FinetuneConfig, SvmConfig, CommonConfig):
    """Everything that decides a run's model, and the rules it runs under.

    Field names are the keys of a configuration file, of ``key=value`` on the command line
    and of ``flwr run --run-config``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, values: Any) -> Any:
        """Give keys that are left empty what their method wants."""
        return fill_in(values, METHOD_DEFAULTS.get(str(values.get("method", "svm")), {}))

    @model_validator(mode="after")
    def _enough_views(self) -> Self:
        if self.method in ("finetune", "private_finetune") and not self.views:
            raise ValueError("'views' is 0; fine-tuning trains on augmented views, at least 1")
        return self

    @model_validator(mode="after")
    def _no_false_promise(self) -> Self:
        if self.epsilon and not self.method.startswith("private"):
            private = {"svm": "private classifier=hinge", "finetune": "private_finetune"}
            raise ValueError(
                f"'epsilon' is {self.epsilon:g}, but method {self.method} sends sums without "
                f"noise; set method={private[self.method]}"
            )
        return self

    @model_validator(mode="after")
    def _private_can(self) -> Self:
        if self.method == "private_finetune" and self.classifier != "softmax":
            raise ValueError(
                f"'classifier' is {self.classifier}; a network is trained with softmax only"
            )
        if self.method.startswith("private") and self.imbalance in ("oversample", "focal"):
            raise ValueError(
                f"'imbalance' is {self.imbalance}, which no private run offers; "
                "set none, weights or logits"
            )
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
    def _defence_possible(self) -> Self:
        if not self.defended:
            return self
        key = "norm_bound" if self.robust == "none" else "robust"
        if self.method != "finetune":
            raise ValueError(
                f"'{key}' is {getattr(self, key)}, but {_UNDEFENDED[self.method]}; it is for "
                "method=finetune"
            )
        if self.secure:
            raise ValueError(
                f"'{key}' is {getattr(self, key)}, but under secure sums the coordinator sees no "
                "site's change; a site would have to prove the norm of its own, which none can "
                f"here: set secure=false or {key}={type(self).model_fields[key].default}"
            )
        if self.optimizer != "sgd":
            raise ValueError(
                f"'{key}' is {getattr(self, key)}, but adamw divides steps by averaged mean "
                "squares; without what a defence takes for outliers they are too small and the "
                "weights explode: set optimizer=sgd, and lr to suit"
            )
        if self.robust != "none" and self.patience:
            raise ValueError(
                f"'patience' is {self.patience}, but what sites say of their validation lesions "
                "may be a lie, too: with 'robust' the last round is kept; set patience=0"
            )
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
            config = cls.model_validate(dict(values))
        except ValidationError as error:
            raise ConfigError(_explain(error)) from error
        return config

    def flat(self) -> dict[str, str | int | float]:
        """Return the values as Flower's run configuration holds them."""
        return {key: _flat(value) for key, value in self}

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
        )


def _flat(value: object) -> str | int | float:
    if value is None:
        return ""
    if isinstance(value, tuple):
        return ",".join(str(item) if isinstance(item, str) else repr(item) for item in value)
    return value if isinstance(value, int | float) else str(value)


def _explain(error: ValidationError) -> str:
    first = error.errors()[0]
    if not first["loc"]:  # a rule about several keys
        return str(first["msg"]).removeprefix("Value error, ")
    key = str(first["loc"][0])
    if first["type"] == "extra_forbidden":
        known = ", ".join(RunConfig.model_fields)
        return f"unknown configuration key {key!r} with value {first['input']!r}; known are {known}"
    return f"configuration key '{key}' is {first['input']!r}: {first['msg']}"
