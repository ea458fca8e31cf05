"""The setting of the screening rule's thresholds."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field

from common.data.patient_groups import PatientGroups
from common.errors import ConfigError


def _grouped(text: str) -> str:
    try:
        if text.strip():
            PatientGroups.read(text)
    except ConfigError as error:
        raise ValueError(str(error)) from error
    return text.strip()


class ScreeningConfig(BaseModel):
    """Whether patients of some group have a screening threshold of their own."""

    screening_by: Annotated[str, Field(max_length=100), AfterValidator(_grouped)] = Field(
        default="",
        description="groups of patients with a screening threshold each: sex, age, age:40,60 or"
        " localization; none if empty. It may be unlawful: docs/fairness.md",
    )

    @property
    def patient_groups(self) -> PatientGroups | None:
        """The groups of patients with a threshold each; None for one threshold."""
        return PatientGroups.read(self.screening_by) if self.screening_by else None

    @property
    def screening_column(self) -> str:
        """The column of these groups; "" for none."""
        return self.patient_groups.column if self.patient_groups else ""
