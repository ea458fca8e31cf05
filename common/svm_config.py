"""The settings of the SVM on frozen features."""

from typing import Literal

from pydantic import BaseModel, Field

from common.config_fields import Positives


class SvmConfig(BaseModel):
    """What decides the classifier on frozen features."""

    head: Literal["svm", "ridge", "lda"] = Field(
        default="svm", description="classifier: exact SVM in rounds, or one-shot ridge or LDA"
    )
    components: int = Field(default=512, ge=1, description="principal components kept")
    kernel: Literal["linear", "rbf"] = Field(default="linear", description="kernel of the SVM")
    fourier: int = Field(default=1024, ge=1, description="random Fourier features of the RBF map")
    widths: Positives = Field(
        default=(0.5, 1.0, 2.0), description="RBF widths to choose from, in feature norms"
    )
    c: Positives = Field(
        default=(1e-5, 3e-5, 1e-4, 3e-4), description="regularisation strengths C to choose from"
    )
    alpha: float = Field(default=1e3, gt=0, description="ridge penalty")
    tolerance: float = Field(default=1e-8, gt=0, description="gradient norm that ends the solver")
    max_rounds: int = Field(default=200, ge=1, description="most rounds of one fit")
    min_active: int = Field(
        default=20, ge=1, description="lesions that must pull in each problem for a site to answer"
    )
