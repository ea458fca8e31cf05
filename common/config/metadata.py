"""The settings of what is known of a patient, as inputs beside the image."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field

from common.config.fields import listed
from common.data.metadata import check_columns


def _checked(columns: tuple[str, ...]) -> tuple[str, ...]:
    check_columns(columns)
    return columns


_Column = Annotated[str, Field(max_length=40)]
Columns = Annotated[tuple[_Column, ...], BeforeValidator(listed), AfterValidator(_checked)]


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
        description="share of the training views that are seen without these columns",
    )
