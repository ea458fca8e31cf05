"""The settings of a comparison of pictures across sites."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field


def _power_of_two(value: int) -> int:
    if value.bit_count() != 1:
        raise ValueError("it must be a power of two, so that it tells little of a site's size")
    return value


class DuplicatesConfig(BaseModel):
    """How many pictures are compared."""

    most_pictures: Annotated[int, AfterValidator(_power_of_two)] = Field(
        default=16_384,
        ge=1_024,
        le=65_536,
        description="pictures that every site seems to have: fewer are padded, more are refused;"
        " a power of two",
    )
