"""The settings of the remedies for rare classes and for groups of lesions."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, Field

from common.data.balance import BalancedGroups
from common.errors import ConfigError

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


def _balanced(text: str) -> str:
    try:
        if text.strip():
            BalancedGroups.read(text)
    except ConfigError as error:
        raise ValueError(str(error)) from error
    return text


class BalanceConfig(BaseModel):
    """Which groups of lesions count alike in training, within each diagnosis."""

    balance_groups: Annotated[str, AfterValidator(_balanced)] = Field(
        default="",
        description="groups whose lesions weigh the same in total within each diagnosis: sex, age,"
        " localization, skin_tone, or two as sex*age; ages by decades, or as age:40,60; none if"
        " empty",
    )

    @property
    def balanced_groups(self) -> BalancedGroups | None:
        """The groups, if there are any."""
        return BalancedGroups.read(self.balance_groups) if self.balance_groups.strip() else None
