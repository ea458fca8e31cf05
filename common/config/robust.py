"""The settings of the defence against hostile sites."""

from typing import Literal, Self

from pydantic import BaseModel, Field, model_validator

Rule = Literal["none", "median", "trimmed_mean", "krum", "multikrum", "crosscheck"]

CROSSCHECK = "crosscheck"
"""Rule by which sites judge each other's changes, and the question that asks them to."""


class RobustConfig(BaseModel):
    """How the coordinator averages changes of weights, some of which may be hostile."""

    robust: Rule = Field(
        default="none", description="rule that averages sites' changes, some of which may be false"
    )
    hostile: int = Field(default=0, ge=0, description="hostile sites that the rule must withstand")
    mixing: bool = Field(
        default=True, description="average each change with its nearest ones before the rule"
    )
    norm_bound: float = Field(
        default=0.0, ge=0, description="largest norm of a site's change, in medians of all; 0: any"
    )

    @property
    def defended(self) -> bool:
        """Whether anything is done against hostile sites."""
        return self.robust != "none" or self.norm_bound > 0

    @model_validator(mode="after")
    def _rule_and_number(self) -> Self:
        if (self.robust == "none") != (self.hostile == 0):
            raise ValueError(
                f"'robust' is {self.robust} and 'hostile' is {self.hostile}; a rule needs the "
                "number of hostile sites to withstand, at least 1; without a rule it is 0"
            )
        return self
