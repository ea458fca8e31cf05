"""The settings of the SVM on frozen features."""

from typing import Literal, Self

from pydantic import Field, model_validator

from common.config.features import FeaturesConfig
from common.config.fields import Positives, Sites


class SvmConfig(FeaturesConfig):
    """What decides the classifier on frozen features."""

    power: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="exponent of the features of the network's last level; 0.5: their roots",
    )
    kernel: Literal["linear", "rbf"] = Field(default="linear", description="kernel of the SVM")
    fourier: int = Field(
        default=1024, ge=1, le=16384, description="random Fourier features of the RBF map"
    )
    widths: Positives = Field(
        default=(0.5, 1.0, 2.0), description="RBF widths to choose from, in feature norms"
    )
    c: Positives = Field(
        default=(1e-5, 3e-5, 1e-4, 3e-4), description="regularisation strengths C to choose from"
    )
    judged: Literal["all", "first"] = Field(
        default="all",
        description="folds that C is chosen on and probabilities are calibrated on; 'first' if a"
        " run fine-tuned the network on the others",
    )
    whitening: float = Field(
        default=0.1,
        ge=0,
        description="evens out the variances of the components, the more the smaller it is, as 0.3"
        " of their mean; 0: not at all",
    )
    penalty: float = Field(default=1e3, gt=0, description="ridge penalty")
    tolerance: float = Field(default=1e-8, gt=0, description="gradient norm that ends the solver")
    max_rounds: int = Field(default=200, ge=1, description="most rounds of one fit")
    min_active: int = Field(
        default=20, ge=1, description="least number of lesions that are active in a problem"
    )
    clip_features: float = Field(
        default=0.0,
        ge=0,
        description="largest norm of a view's components, in roots of the number of features;"
        " 0: any",
    )

    @model_validator(mode="after")
    def _rounds_for_all_fits(self) -> Self:
        rbf = self.kernel == "rbf"
        key, fits = (
            "fourier" if rbf else "components",
            len(self.c) * (len(self.widths) if rbf else 1),
        )
        if self.head == "svm" and getattr(self, key) // 2 <= fits:
            raise ValueError(
                f"'{key}' is {getattr(self, key)}: sites answer half as many rounds in a run, too "
                f"few for the {fits + 1} fits that it takes; set more, or fewer values of 'c'"
            )
        return self

    leaving: Sites = Field(
        default=(),
        description="sites whose share is taken out of the sums of 'parent', for ridge and LDA",
    )

    @model_validator(mode="after")
    def _leaves_sums(self) -> Self:
        if self.leaving and self.head == "svm":
            raise ValueError(
                f"'leaving' is {','.join(self.leaving)}, but head svm is solved in rounds with all "
                "sites, so who is not there is not in it; leave 'leaving' out"
            )
        return self

    @model_validator(mode="after")
    def _clip_in_rounds(self) -> Self:
        if self.clip_features and self.head != "svm":
            raise ValueError(
                f"'clip_features' is {self.clip_features:g}, but head {self.head} is solved from "
                "moments of features that are not clipped; set head=svm"
            )
        return self
