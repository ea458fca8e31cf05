"""The settings of what is known of a patient, as inputs beside the image."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field

from common.config.fields import Some, listed, split
from common.data.metadata import check_columns


def _checked(columns: tuple[str, ...]) -> tuple[str, ...]:
    check_columns(columns)
    return columns


_Column = Annotated[str, Field(max_length=40)]
Columns = Annotated[tuple[_Column, ...], BeforeValidator(listed), AfterValidator(_checked)]


_Scale = Annotated[float, Field(gt=0, le=1e3)]
Scales = Annotated[tuple[_Scale, ...], BeforeValidator(split), Some]


class MetadataConfig(BaseModel):
    """Which columns of the table are inputs beside the image, and how they are trained on."""

    metadata: Columns = Field(
        default=(),
        description="columns that are inputs beside the image: age, sex, localization; none if"
        " empty",
    )
    metadata_dropped: float = Field(
        default=0.5,
        ge=0,
        lt=1,
        description="share of training without these columns: of the views, or of the loss of each"
        " one where a network is fine-tuned",
    )


class MetadataScaleConfig(BaseModel):
    """How large the numbers of metadata are beside features that are not trained."""

    metadata_scale: Scales = Field(
        default=(0.1, 0.3),
        description="sizes of the metadata beside the features, to choose from, in feature norms;"
        " a private run takes one and does not choose",
    )


class FusionConfig(BaseModel):
    """How a network that is trained takes metadata."""

    fusion: Literal["late", "gate"] = Field(
        default="gate",
        description="how the network takes metadata: late: beside its pooled features; gate: it"
        " scales and shifts each of them",
    )
