"""The setting of the screening rule's thresholds."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field

from common.config.fields import read_by
from common.data.patient_groups import PatientGroups


def _stripped(text: str) -> str:
    return text.strip()


def _groups_of(text: str) -> PatientGroups | None:
    return PatientGroups.read(text) if text else None


class ScreeningConfig(BaseModel):
    """Whether patients of some group have a screening threshold of their own."""

    screening_by: Annotated[
        str, Field(max_length=100), AfterValidator(_stripped), read_by(_groups_of)
    ] = Field(
        default="",
        description="groups of patients with a screening threshold each: sex, age, age:40,60 or"
        " localization; none if empty. It may be unlawful: docs/fairness.md",
    )

    @property
    def patient_groups(self) -> PatientGroups | None:
        """The groups of patients with a threshold each; None for one threshold."""
        return _groups_of(self.screening_by)

    @property
    def screening_column(self) -> str:
        """The column of these groups; "" for none."""
        return self.patient_groups.column if self.patient_groups else ""
