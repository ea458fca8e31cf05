"""The settings of a run that goes on from a finished one."""

from pydantic import BaseModel, Field

from common.config.fields import OptionalPath


class ParentConfig(BaseModel):
    """From which finished run a run goes on."""

    parent: OptionalPath = Field(
        default=None, description="finished run to go on from; the coordinator reads it"
    )
