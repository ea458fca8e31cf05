"""A model's answer about one image: how likely, how sure, by which rule, or "ask a person".

Plain values, which the command line, the page and Python show alike.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from common.task import Task

Target = Literal["mel", "malignant"]
"""What a screening rule looks for: melanoma, or all malignant diagnoses."""

TARGETS: tuple[Target, ...] = ("mel", "malignant")
"""All targets that a task may have."""


@dataclass(frozen=True)
class PredictionSet:
    """The diagnoses that cannot be excluded at a stated coverage.

    Attributes
    ----------
    diagnoses : codes, the likeliest first; never empty.
    coverage : share of new lesions whose set holds their diagnosis, in (0, 1), as it is promised.
    threshold : whose lesions the promise is about, as of
        :class:`common.answers.answering.AnswerOptions`, or "prevalence".
    lesions : number of calibration lesions that it rests on.
    without_guarantee : codes of diagnoses with too few calibration lesions for a threshold of
        their own; for these nothing is promised.
    """

    diagnoses: tuple[str, ...]
    coverage: float
    threshold: Literal["pooled", "class", "site", "everywhere", "prevalence"]
    lesions: int
    without_guarantee: tuple[str, ...] = ()


@dataclass(frozen=True)
class Screening:
    """Whether the screening rule for a target flags an image.

    Attributes
    ----------
    target : melanoma, or all malignant diagnoses.
    flagged : whether the probability is at least the threshold.
    probability, threshold : of the target, in [0, 1].
    sensitivity, specificity : of the rule on the calibration lesions, in [0, 1].
    sensitivity_interval, specificity_interval : their 95 % intervals.
    group : the patients that the threshold and these figures are for, such as "sex female"; None
        for the common threshold, of all patients.
    common_threshold : the threshold of all patients, where the one used is a group's; else None.
    """

    target: Target
    flagged: bool
    probability: float
    threshold: float
    sensitivity: float
    sensitivity_interval: tuple[float, float]
    specificity: float
    specificity_interval: tuple[float, float]
    group: str | None = None
    common_threshold: float | None = None


@dataclass(frozen=True)
class Metadata:
    """What is known of the patient, which the model used, and what it says without it.

    Attributes
    ----------
    used : what was used by column: ``age`` in years, ``sex``, ``localization``; never empty.
    diagnosis_without : code of the likeliest diagnosis from the image alone.
    probabilities_without : of all diagnoses by code, from the image alone, the likeliest first.
    flagged_without : targets of the screening rules that flag the image alone.
    """

    used: Mapping[str, float | str]
    diagnosis_without: str
    probabilities_without: Mapping[str, float]
    flagged_without: tuple[Target, ...] = ()


@dataclass(frozen=True)
class Answer:
    """What a model says of one image. Not a medical device.

    Attributes
    ----------
    image : name of the image, as it was given.
    task : the diagnoses that the model tells apart.
    diagnosis : code of the likeliest diagnosis (rule ``likeliest``).
    name : its full name.
    malignant : whether it is malignant.
    probability : its probability, in [0, 1].
    probabilities : of all diagnoses by code, the likeliest first; they sum to 1.
    trained_probabilities : the same for the frequencies of the training sites, where the user gave
        other ones; else None.
    stands_out : code of the diagnosis whose probability is largest beside its base rate (rule
        ``balanced``), which is the best rule for balanced accuracy.
    times_base_rate : how many times its base rate that probability is, at least 0.
    screening : the screening rules that the model has; none without calibration lesions.
    prediction_set : the diagnoses that cannot be excluded; None without calibration lesions.
    refer : why a person should be asked, in sentences; none if the model does not ask for one.
    distance : how unlike the training images it is, about 1 as a rule; None where it is not known.
    notes : what else must be said of this answer, in sentences.
    metadata : what it says of the image alone, where it used what is known of the patient; else
        None.
    model : SHA-256 of the model's file, in hexadecimal; "" where it was not read from one.
    """

    image: str
    task: Task
    diagnosis: str
    name: str
    malignant: bool
    probability: float
    probabilities: Mapping[str, float]
    trained_probabilities: Mapping[str, float] | None
    stands_out: str
    times_base_rate: float
    screening: tuple[Screening, ...]
    prediction_set: PredictionSet | None
    refer: tuple[str, ...]
    distance: float | None
    notes: tuple[str, ...] = ()
    metadata: Metadata | None = None
    model: str = ""


@dataclass(frozen=True)
class Unreadable:
    """An image that the model gives no answer about.

    Attributes
    ----------
    image : its name, as it was given.
    error : why, in one line.
    """

    image: str
    error: str
