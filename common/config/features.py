"""The settings of classifiers on frozen features."""

from typing import Literal

from pydantic import BaseModel, Field

Head = Literal["svm", "ridge", "lda", "softmax", "hinge"]


class FeaturesConfig(BaseModel):
    """How frozen features are computed, and which head is trained on them."""

    levels: int = Field(default=3, ge=0, le=100, description="depths pooled beside the last one")
    components: int = Field(
        default=512,
        ge=1,
        le=8192,
        description="dimensions kept: principal components; in a private run of generated pictures",
    )
    head: Head = Field(
        default="svm",
        description="classifier: exact SVM in rounds, one-shot ridge or LDA; privately by noisy"
        " gradients of the cross-entropy (softmax) or an SVM's loss (hinge), or LDA of moments that"
        " are sent once",
    )
