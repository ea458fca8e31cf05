"""The settings of what a run tells of its rounds."""

from pydantic import BaseModel, Field


class ProgressConfig(BaseModel):
    """What is written of each round of the training."""

    tensorboard: bool = Field(default=False, description="write event files for TensorBoard")
