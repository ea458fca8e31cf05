"""The settings of an external validation."""

from typing import Literal

from pydantic import BaseModel, Field

from common.config.fields import OptionalPath


class ValidateConfig(BaseModel):
    """Which finished model is judged, on which lesions of the sites."""

    model: OptionalPath = Field(
        default=None, description="run or model file to judge; the coordinator reads it"
    )
    lesions: Literal["all", "test"] = Field(
        default="all", description="lesions of the sites that are judged: all, or those held out"
    )
