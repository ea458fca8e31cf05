"""The settings of a run that goes on from a finished one."""

from typing import Self

from pydantic import BaseModel, Field, model_validator

from common.config.fields import OptionalPath
from common.config.groups import GroupNames, groups_of
from common.data.counted_groups import SITE, CountedGroups


class ParentConfig(BaseModel):
    """From which finished run a run goes on, and whether its model may replace that one's."""

    parent: OptionalPath = Field(
        default=None, description="finished run to go on from; the coordinator reads it"
    )
    gate: bool = Field(
        default=False,
        description="compare the model with that of 'parent' on the sites' held-out lesions, and"
        " say which one to use",
    )
    gate_margin: float = Field(
        default=0.02,
        ge=0,
        le=1,
        description="what may be lost of balanced accuracy, melanoma sensitivity and coverage",
    )
    gate_least: int = Field(
        default=100, ge=1, description="lesions from which on a site or group is judged apart"
    )
    gate_by: GroupNames = Field(
        default=(),
        description="groups that are judged beside sites: sex, age, localization, dx_type,"
        " skin_tone, or two as sex*age; none if empty",
    )

    @property
    def gate_groups(self) -> CountedGroups:
        """The groups of lesions that are judged apart."""
        return groups_of(self.gate_by)

    @model_validator(mode="after")
    def _sites_without_asking(self) -> Self:
        if SITE in self.gate_by:
            raise ValueError("'gate_by' names site, but sites are judged without it; leave it out")
        return self
