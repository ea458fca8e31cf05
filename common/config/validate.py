"""The settings of an external validation."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field

from common.config.fields import OptionalPath, listed
from common.data.counted_groups import CountedGroups
from common.errors import ConfigError


def _counted(names: tuple[str, ...]) -> tuple[str, ...]:
    try:
        CountedGroups.read(",".join(names))
    except ConfigError as error:
        raise ValueError(str(error)) from error
    return names


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
    by: Annotated[tuple[str, ...], BeforeValidator(listed), AfterValidator(_counted)] = Field(
        default=(),
        description="groups that are counted apart: sex, age, localization, dx_type, skin_tone,"
        " site, or two as sex*age; none if empty",
    )

    @property
    def counted_groups(self) -> CountedGroups:
        """The groups of lesions that sites count apart."""
        return CountedGroups.read(",".join(self.by))
