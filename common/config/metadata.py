"""The settings of what is known of a patient, as inputs beside the image."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field

from common.config.fields import Positives, listed
from common.data.metadata import check_columns


def _checked(columns: tuple[str, ...]) -> tuple[str, ...]:
    check_columns(columns)
    return columns


class MetadataConfig(BaseModel):
    """Which columns of the table are inputs beside the image, and how they are trained on."""

    metadata: Annotated[tuple[str, ...], BeforeValidator(listed), AfterValidator(_checked)] = Field(
        default=(),
        description="columns that are inputs beside the image: age, sex, localization; none if"
        " empty",
    )
    metadata_dropped: float = Field(
        default=0.5,
        ge=0,
        lt=1,
        description="share of the training views that are seen without these columns",
    )


class ScaledMetadataConfig(MetadataConfig):
    """What frozen features need to know beside: how large these columns are among them."""

    metadata_scale: Positives = Field(
        default=(0.1, 0.3),
        description="sizes of these columns beside the features, to choose from, in feature norms",
    )


class FusedMetadataConfig(MetadataConfig):
    """What a network needs to know beside: how these columns enter it."""

    fusion: Literal["late", "gate"] = Field(
        default="late",
        description="how a network takes these columns: late: beside its pooled features; gate:"
        " they scale and shift each",
    )
