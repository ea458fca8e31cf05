"""The settings of an external validation."""

from typing import Literal

from pydantic import BaseModel, Field

from common.config.fields import OptionalPath
from common.config.groups import GroupNames, groups_of
from common.data.counted_groups import CountedGroups


class ValidateConfig(BaseModel):
    """Which finished model is judged, on which lesions of the sites."""

    model: OptionalPath = Field(
        default=None, description="run or model file to judge; the coordinator reads it"
    )
    lesions: Literal["all", "test"] = Field(
        default="all", description="lesions of the sites that are judged: all, or those held out"
    )
    without_metadata: bool = Field(
        default=False,
        description="judge a model with metadata as if nothing was known of the patients",
    )
    by: GroupNames = Field(
        default=(),
        description="groups that are counted apart: sex, age, localization, dx_type, skin_tone,"
        " site, or two as sex*age; none if empty",
    )

    @property
    def counted_groups(self) -> CountedGroups:
        """The groups of lesions that sites count apart."""
        return groups_of(self.by)
