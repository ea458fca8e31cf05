"""The settings of the remedy for rare classes, where a classifier is trained by gradients."""

from typing import Literal

from pydantic import BaseModel, Field

Imbalance = Literal["none", "weights", "oversample", "focal", "logits"]


class ImbalanceConfig(BaseModel):
    """The remedy for rare classes, and its strength."""

    imbalance: Imbalance = Field(
        default="weights",
        description="remedy for rare classes: loss weights, more draws, focal"
        " loss, or logits adjusted by the priors",
    )
    imbalance_strength: float = Field(
        default=0.7, ge=0, description="exponent of class weights, factor of adjusted logits"
    )
