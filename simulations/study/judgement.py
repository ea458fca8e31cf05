"""How good models are on the same test lesions: plain values that a report reads."""

from dataclasses import dataclass

from simulations.study.intervals import Interval


@dataclass(frozen=True)
class AnswerQuality:
    """How a model's answers do on lesions, whose images share its weight, with 95 % intervals.

    What the model does not answer, since it has too few calibration lesions, is nan.

    Attributes
    ----------
    coverage : share of the lesions whose 95 % prediction set holds their diagnosis.
    set_size : mean number of diagnoses in a set.
    augrc : as of :class:`common.answers.referral.RiskCoverage`, in [0, 0.5]; lower is better.
    risk_at_90 : share of the surest 90 % whose likeliest diagnosis is wrong.
    mel_sensitivity, mel_specificity : of the screening rule for melanoma at its threshold.
    malignant_sensitivity, malignant_specificity : of that for all malignant diagnoses.
    """

    coverage: float
    coverage_interval: Interval
    set_size: float
    set_size_interval: Interval
    augrc: float
    augrc_interval: Interval
    risk_at_90: float
    risk_at_90_interval: Interval
    mel_sensitivity: float
    mel_sensitivity_interval: Interval
    mel_specificity: float
    mel_specificity_interval: Interval
    malignant_sensitivity: float
    malignant_sensitivity_interval: Interval
    malignant_specificity: float
    malignant_specificity_interval: Interval


@dataclass(frozen=True)
class Quality:
    """How good a model is; intervals are 95 % over lesions, all in [0, 1].

    Attributes
    ----------
    calibration_error, calibration_error_before : expected calibration error of the
        probabilities, and of what they would be without calibration.
    answers : how sure it is, and how rightly.
    """

    balanced_accuracy: float
    balanced_accuracy_interval: Interval
    macro_auc: float
    macro_auc_interval: Interval
    accuracy: float
    calibration_error: float
    calibration_error_before: float
    answers: AnswerQuality


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
