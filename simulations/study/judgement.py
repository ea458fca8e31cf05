"""How good models are on the same test lesions: plain values that a report reads."""

from dataclasses import dataclass

from simulations.study.intervals import Interval


@dataclass(frozen=True)
class Quality:
    """How good a model is; intervals are 95 % over lesions, all in [0, 1].

    Attributes
    ----------
    calibration_error, calibration_error_before : expected calibration error of the
        probabilities, and of what they would be without calibration.
    """

    balanced_accuracy: float
    balanced_accuracy_interval: Interval
    macro_auc: float
    macro_auc_interval: Interval
    accuracy: float
    calibration_error: float
    calibration_error_before: float


@dataclass(frozen=True)
class Gap:
    """A model's metrics minus another's; intervals are 95 %, paired over lesions."""

    balanced_accuracy: float
    balanced_accuracy_interval: Interval
    macro_auc: float
    macro_auc_interval: Interval


@dataclass(frozen=True)
class Judged:
    """One run's model on the test images; ``gap`` is to the first run, which has none."""

    run: str
    method: str
    quality: Quality
    gap: Gap | None


@dataclass(frozen=True)
class Judgement:
    """Several runs' models on the same test images."""

    synthetic: bool
    images: int
    lesions: int
    runs: list[Judged]
