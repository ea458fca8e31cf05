"""How good models are on the same test lesions: plain values that a report reads."""

from collections.abc import Sequence
from dataclasses import dataclass

from common.text import printable
from simulations.evaluation.groups.figures import ByGroup
from simulations.evaluation.intervals import Interval

_SHOWN = 3
"""Copies that are named, at most."""


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
class SiteFigures:
    """A model on one site's test images; intervals are 95 % over lesions, all in [0, 1].

    Attributes
    ----------
    site : the source that the table names.
    images, lesions : how many there are.
    diagnoses : those that the site has; means are over them.
    balanced_accuracy, macro_auc, accuracy : with one diagnosis alone there is no AUC, and no
        interval: both are nan.
    """

    site: str
    images: int
    lesions: int
    diagnoses: tuple[str, ...]
    balanced_accuracy: float
    balanced_accuracy_interval: Interval
    macro_auc: float
    macro_auc_interval: Interval
    accuracy: float
    accuracy_interval: Interval


@dataclass(frozen=True)
class Judged:
    """One run's model on the test images.

    Attributes
    ----------
    gap : to the first run, which has none.
    confusion : number of images by [true, predicted] class.
    sites : by source of the images; none where the table names no sources.
    by_group : by the groups that were asked for; None where none were.
    """

    run: str
    method: str
    quality: Quality
    gap: Gap | None
    confusion: tuple[tuple[int, ...], ...]
    sites: tuple[SiteFigures, ...]
    by_group: ByGroup | None = None


@dataclass(frozen=True)
class OtherDiagnosis:
    """A diagnosis of a table that is none of the models' by this name.

    Attributes
    ----------
    diagnosis : its code; of one that no table knows the table's own text, "" where it has none.
    counts_as : the models' diagnosis that it is mapped to; "" for none: it is not judged.
    images, lesions : how many have it.
    """

    diagnosis: str
    counts_as: str
    images: int
    lesions: int


@dataclass(frozen=True)
class Selection:
    """Which images of the data are the test images.

    Attributes
    ----------
    every_lesion : whether all lesions are for testing; else those that the runs held out.
    others : diagnoses that are none of the models' by their names.
    left_out : number of images of lesions that a model was trained on.
    copies : those of them that were encoded again or resized, each with the image that was trained
        on.
    unchecked : runs whose training images are not at hand, so that nobody knows if these are new.
    """

    every_lesion: bool = False
    others: tuple[OtherDiagnosis, ...] = ()
    left_out: int = 0
    copies: tuple[tuple[str, str], ...] = ()
    unchecked: tuple[str, ...] = ()


@dataclass(frozen=True)
class Judgement:
    """Several runs' models on the same test images.

    Attributes
    ----------
    classes : codes of the diagnoses, in the order of ``confusion``.
    """

    synthetic: bool
    images: int
    lesions: int
    classes: tuple[str, ...]
    selection: Selection
    runs: list[Judged]


def copies_in_words(copies: Sequence[tuple[str, str]]) -> str:
    """Say how many images are copies of what was trained on, and name some; "" where none is."""
    if not copies:
        return ""
    shown = ", ".join(f"{printable(own)} of {printable(other)}" for own, other in copies[:_SHOWN])
    return (
        f"{len(copies)} encoded again or resized, found by what they show: {shown}"
        f"{', ...' * (len(copies) > _SHOWN)}"
    )
