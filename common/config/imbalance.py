"""The settings of the remedies for rare classes and for groups of lesions."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from common.config.fields import read_by
from common.data.balance import BalancedGroups

Imbalance = Literal["none", "weights", "oversample", "focal", "logits"]


class ImbalanceConfig(BaseModel):
    """The remedy for rare classes where a classifier is trained by gradients, and its strength."""

    imbalance: Imbalance = Field(
        default="weights",
        description="remedy for rare classes: loss weights, more draws, focal"
        " loss, or logits adjusted by the priors",
    )
    imbalance_strength: float = Field(
        default=0.7, ge=0, description="exponent of class weights, factor of adjusted logits"
    )


def _groups_of(text: str) -> BalancedGroups | None:
    return BalancedGroups.read(text) if text.strip() else None


class BalanceConfig(BaseModel):
    """Which groups of lesions count alike in training, within each diagnosis."""

    balance_groups: Annotated[str, read_by(_groups_of)] = Field(
        default="",
        description="groups whose lesions weigh the same in total within each diagnosis: sex, age,"
        " localization, skin_tone, or two as sex*age; ages by decades, or as age:40,60; none if"
        " empty",
    )

    @property
    def balanced_groups(self) -> BalancedGroups | None:
        """The groups, if there are any."""
        return _groups_of(self.balance_groups)
