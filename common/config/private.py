"""The settings of training with differential privacy."""

from typing import Literal, Self

from pydantic import Field, model_validator

from common.config.features import FeaturesConfig

Unit = Literal["lesion_id", "patient_id", "image_id"]


class PrivateConfig(FeaturesConfig):
    """The privacy budget of a run, and how training spends it."""

    epsilon: float = Field(
        default=0.0, ge=0, description="privacy budget of a unit over the whole run; 0: no promise"
    )
    delta: float = Field(
        default=1e-5, gt=0, lt=1e-2, description="chance that epsilon does not hold"
    )
    unit: Unit = Field(
        default="lesion_id", description="column that names what is private, with all of its images"
    )
    trust: Literal["site", "distributed"] = Field(
        default="site",
        description="whose noise protects a site: its own, or that of `honest` sites together",
    )
    honest: int = Field(
        default=1, ge=1, description="least number of sites that add noise, with trust=distributed"
    )
    steps: int = Field(default=100, ge=1, description="noisy gradients in a private run")
    rate: float = Field(default=1.0, gt=0, le=1, description="chance that a step samples a unit")
    clip_norm: float = Field(default=1.0, gt=0, description="clipping norm of a unit's gradient")
    opens: str = Field(
        default="conv_head",
        description="first module that private_finetune trains; head: the head alone",
    )

    @property
    def releases(self) -> int:
        """Noisy sums that a site sends after the overview."""
        return 1 if self.head == "lda" else self.steps

    @model_validator(mode="after")
    def _opened(self) -> Self:
        if self.opens == "all":
            raise ValueError("'opens' is all; a private run needs a frozen part, try conv_head")
        return self

    @model_validator(mode="after")
    def _sampled(self) -> Self:
        if self.head == "lda" and self.rate != 1:
            raise ValueError("'rate' is for gradients; head=lda takes moments of all units")
        return self

    @model_validator(mode="after")
    def _shared_noise(self) -> Self:
        if self.trust == "site" and self.honest != 1:
            raise ValueError("'honest' is for trust=distributed; a site's own noise is enough")
        return self
