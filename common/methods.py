"""The list of methods: the description, the modules, the settings and the properties of each.

All code that lists or distinguishes methods reads this list. A method's modules are imported when
they are used, because not every method needs PyTorch. ``docs/extending.md`` says how to add one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel

from common.config.duplicates import DuplicatesConfig
from common.config.features import FeaturesConfig
from common.config.finetune import FinetuneConfig
from common.config.imbalance import BalanceConfig, ImbalanceConfig
from common.config.metadata import FusionConfig, MetadataConfig, MetadataScaleConfig
from common.config.parent import ParentConfig
from common.config.private import PrivateConfig
from common.config.progress import ProgressConfig
from common.config.robust import RobustConfig
from common.config.screening import ScreeningConfig
from common.config.svm import SvmConfig
from common.config.validate import ValidateConfig
from common.text import suggestion


@dataclass(frozen=True)
class Method:
    """One way to train a classifier over sites, or to describe what they have.

    Attributes
    ----------
    name : value of the setting ``method``.
    description : one line for a user.
    client, server : modules, as of :mod:`client.method` and :mod:`server.method`.
    model : class of its models, as of :class:`common.models.file.Model`, ``module:Class``; empty
        if it trains none.
    allowlist : module of all that a site may be asked and may answer, as of
        :mod:`client.egress.allowlist`; reviewed apart from the method.
    title : for readers of a study; a setting in braces stands for its value, "" for the name.
    audit : function that attacks a finished run, as of :mod:`simulations.audit.methods`,
        ``module:function``; empty if there is none.
    families : classes of its settings, beside those of all methods.
    defaults : its defaults of settings whose defaults differ between methods.
    going_on : its defaults where a run goes on from a finished one, where these differ.
    choices : by setting, the values that the method offers, where it does not offer all.
    refused : by setting, why the method does not use it, where there is a reason to give.
    private : whether the method is differentially private.
    trains_network : whether weights of the network change; if not, it starts from frozen features.
    trains : whether it trains a model; if not, it judges a finished one or only counts.
    effort : how hard the method is to explain, 0 the least; a study's advice takes the simplest
        route.
    """

    name: str
    description: str
    client: str
    server: str
    model: str
    allowlist: str
    title: str = ""
    audit: str = ""
    families: tuple[type[BaseModel], ...] = ()
    defaults: Mapping[str, object] = field(default_factory=dict)
    going_on: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    private: bool = False
    trains_network: bool = False
    trains: bool = True
    effort: int = 0

    @property
    def settings(self) -> set[str]:
        """Names of the settings that it uses beside those of all methods."""
        names = {name for family in self.families for name in family.model_fields}
        return names - self.refused.keys()

    @property
    def no_model(self) -> str:
        """Why there is no model to be used; "" if there is one."""
        return "" if self.model else f"method {self.name} trains no model"

    def refusal(self, setting: str) -> str:
        """Return why this method has no use for a setting."""
        usual = f"method {self.name} does not use it; `fedderm settings {self.name}` lists its own"
        return self.refused.get(setting, usual)


_WEIGHTS = {"imbalance": "weights", "imbalance_strength": 0.7}
_LOGITS = {"imbalance": "logits", "imbalance_strength": 1.0}
_SCALE = {"metadata_scale": (0.1,)}

_REMEDIES = {"imbalance": ("none", "weights", "logits")}

_VOTE = "a private method's noise is made for the sum; each site's alone would drown a vote"
_NO_LESIONS = (
    "a private method counts no calibration lesions, so there is no screening threshold to choose"
)
_EXACT_SUM = "an exact SVM is the sum over all sites, of which none can be outvoted"


def _no_defence(why: str) -> dict[str, str]:
    return dict.fromkeys(("robust", "norm_bound"), f"{why}; it is for method=finetune")


_NO_BALANCE = {
    "balance_groups": "counts by diagnosis and group would take their share of epsilon, and noise "
    "would drown the small groups that they are for; it is for method=svm and method=finetune"
}


def _images_as_they_are(why: str) -> dict[str, str]:
    of_views = ("backbone", "weights", "size", "resolution", "colour", "views", "predictions")
    return dict.fromkeys((*of_views, "folds", "test_fraction"), f"{why} all images as they are")


def _no_noise(name: str, private: str) -> dict[str, str]:
    return {"epsilon": f"method {name} sends sums without noise; set method={private}"}


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method(
            name="svm",
            description="an SVM on frozen features, exactly that of the pooled data; or ridge, LDA",
            client="client.methods.svm",
            server="server.methods.svm",
            model="common.models.linear:LinearModel",
            allowlist="client.egress.allowlist.svm",
            title="{kernel} {head}",
            audit="simulations.audit.methods:svm",
            families=(
                *(FeaturesConfig, SvmConfig, BalanceConfig),
                *(MetadataConfig, MetadataScaleConfig, ScreeningConfig, ParentConfig),
                ProgressConfig,
            ),
            defaults={
                **{"size": 224, "views": 0, "folds": 3, "head": "svm", "components": 2048},
                **_WEIGHTS,
            },
            choices={"head": ("svm", "ridge", "lda")},
            refused={**_no_noise("svm", "private head=hinge"), **_no_defence(_EXACT_SUM)},
        ),
        Method(
            name="finetune",
            description="a network, opened stage by stage; sites' changes are averaged",
            client="client.methods.finetune",
            server="server.methods.finetune",
            model="common.models.network:NetworkModel",
            allowlist="client.egress.allowlist.finetune",
            title="fine-tuning",
            audit="simulations.audit.methods:finetune",
            families=(
                *(ImbalanceConfig, FinetuneConfig, BalanceConfig, MetadataConfig, FusionConfig),
                *(ScreeningConfig, ParentConfig, ProgressConfig, RobustConfig),
            ),
            defaults={"size": 128, "folds": 10, **_WEIGHTS},
            # Its network is nowhere as pretrained, so nothing of it can be frozen and kept.
            going_on={"stages": ("all",), "rounds": (40,), "lr": (2e-4,)},
            refused=_no_noise("finetune", "private_finetune"),
            trains_network=True,
            effort=2,
        ),
        Method(
            name="private",
            description="a linear classifier on frozen features, with differential privacy",
            client="client.methods.private",
            server="server.methods.private",
            model="common.models.linear:LinearModel",
            allowlist="client.egress.allowlist.private",
            title="private linear",
            audit="simulations.audit.methods:private",
            families=(
                *(FeaturesConfig, ImbalanceConfig, PrivateConfig),
                *(MetadataConfig, MetadataScaleConfig),
            ),
            defaults={
                **{"size": 224, "folds": 3, "head": "softmax", "components": 128},
                **_SCALE,
                **_LOGITS,
            },
            choices={"head": ("softmax", "hinge", "lda"), **_REMEDIES},
            refused={
                "opens": "no network is trained by it",
                "screening_by": _NO_LESIONS,
                **_NO_BALANCE,
                **_no_defence(_VOTE),
            },
            private=True,
        ),
        Method(
            name="private_finetune",
            description="the last layers of a network, with differential privacy",
            client="client.methods.private_finetune",
            server="server.methods.private_finetune",
            model="common.models.network:NetworkModel",
            allowlist="client.egress.allowlist.private_finetune",
            title="private fine-tuning",
            audit="simulations.audit.methods:private_finetune",
            families=(
                *(ImbalanceConfig, PrivateConfig),
                *(MetadataConfig, MetadataScaleConfig, FusionConfig),
            ),
            # A gate has hundreds of times the weights, and each gets noise.
            defaults={"size": 128, "folds": 3, "fusion": "late", **_SCALE, **_LOGITS},
            choices=_REMEDIES,
            refused={
                "head": "a network's head is trained with softmax only",
                "components": "a network's features are not projected",
                "levels": "only a network's last features are used",
                "screening_by": _NO_LESIONS,
                **_NO_BALANCE,
                **_no_defence(_VOTE),
            },
            private=True,
            trains_network=True,
            effort=2,
        ),
        Method(
            name="validate",
            description="external validation: a finished model is judged, nothing is trained",
            client="client.methods.validate",
            server="server.methods.validate",
            model="common.models.linear:LinearModel",
            allowlist="client.egress.allowlist.validate",
            families=(FeaturesConfig, ValidateConfig, MetadataConfig, FusionConfig),
            defaults={"views": 0},
            refused={
                **dict.fromkeys(
                    ("views", "metadata_dropped"),
                    "augmented views are for training, and nothing is trained",
                ),
                **dict.fromkeys(
                    ("components", "head", "screening_by"), "the model to judge has its own"
                ),
                **_no_noise("validate", "private for a model with noise"),
            },
            trains=False,
        ),
        Method(
            name="statistics",
            description="no training: what sites have, as added counts of images and lesions",
            client="client.methods.statistics",
            server="server.methods.statistics",
            model="",
            allowlist="client.egress.allowlist.statistics",
            refused=_images_as_they_are("method statistics trains no model; it counts"),
            trains=False,
        ),
        Method(
            name="duplicates",
            description="no training: which pictures are at two sites, by keyed hashes of them",
            client="client.methods.duplicates",
            server="server.methods.duplicates",
            model="",
            allowlist="client.egress.allowlist.duplicates",
            families=(DuplicatesConfig,),
            refused=_images_as_they_are("method duplicates trains no model; it compares"),
            trains=False,
        ),
    )
}
"""All methods by name, in the order in which users read them."""


def _listed(name: str) -> str:
    if name not in METHODS:
        raise ValueError(f"the methods are {', '.join(METHODS)}{suggestion(name, METHODS)}")
    return name


MethodName = Annotated[str, AfterValidator(_listed)]
"""Name of a method in the list, for pydantic."""
