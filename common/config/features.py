"""The settings of classifiers on frozen features."""

from pydantic import BaseModel, Field


class FeaturesConfig(BaseModel):
    """What frozen features are made of."""

    levels: int = Field(default=3, ge=0, le=100, description="depths pooled beside the last one")
