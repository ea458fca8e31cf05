"""The settings of all methods."""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, Field

from common.config.fields import Codes, FilePath, FullNames, Mappings, OptionalPath, absent
from common.features.augment import PREDICTION_VIEWS
from common.features.pretrained import DEFAULT_BACKBONE
from common.features.transform import RESOLUTION, Colour
from common.methods import METHODS, MethodName
from common.text import matching

_EXACT = " and ".join(m.name for m in METHODS.values() if m.model and not m.private)


class CommonConfig(BaseModel):
    """The rules of a run, and what all methods see of the images."""

    out: OptionalPath = Field(default=None, description="run folder to write")
    sites: OptionalPath = Field(default=None, description="folder with one folder per site")
    cache: Annotated[FilePath, BeforeValidator(absent)] = Field(
        default=Path("~/.cache/fedderm"), description="folder for features, shared by all runs"
    )
    seed: int = Field(default=0, ge=0, description="seed of splits, views and random features")

    method: MethodName = Field(
        default="svm",
        description=f"how the sites train; {_EXACT} send exact sums, which may show"
        " single lesions to a coordinator that crafts questions; only the private methods' noise"
        " hides them",
    )
    diagnoses: Codes = Field(
        default=(),
        description="codes of the diagnoses to tell apart, or ham10000, isic2019 or binary; empty:"
        " those of the data in a simulation, else of HAM10000",
    )
    malignant: Codes = Field(
        default=(), description="which of them are malignant; empty: those known to be"
    )
    mapping: Mappings = Field(
        default=(), description="diagnoses that count as one of them, as scc->bcc,akiec+bcc->kc"
    )
    names: FullNames = Field(
        default=(), description="their full names, as kc:keratinocyte carcinoma"
    )
    backbone: Annotated[str, matching(r"[\w.-]{1,100}", "no name in timm")] = Field(
        default=DEFAULT_BACKBONE,
        description="pretrained network, by its name in timm",
    )
    weights: OptionalPath = Field(default=None, description="its weights file, if not built in")
    size: int = Field(
        default=224, ge=32, le=2048, description="height and width of a view in pixels"
    )
    resolution: int = Field(
        default=RESOLUTION,
        ge=32,
        le=2048,
        description="pixels of the short side that larger images are reduced to before any crop",
    )
    colour: Colour = Field(
        default="none", description="colour constancy: how the light's colour is taken out"
    )
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
