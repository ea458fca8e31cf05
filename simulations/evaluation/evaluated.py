"""What an evaluation gives in Python: flat rows of plain values, of which a list is a table."""

from collections.abc import Iterator
from dataclasses import astuple, dataclass
from math import nan

from simulations.evaluation.judgement import Gap, Judged, Judgement, Selection, SiteFigures

_NO_GAP = Gap(nan, (nan, nan), nan, (nan, nan))


@dataclass(frozen=True)
class EvaluatedRun:
    """A run's model on test images that all runs hold out.

    Attributes
    ----------
    run, method : its folder, and how its sites trained.
    balanced_accuracy, macro_auc, accuracy : in [0, 1].
    calibration_error, calibration_error_before : expected calibration error of the
        probabilities, and of what they would be without calibration, in [0, 1].
    balanced_accuracy_gap, macro_auc_gap : the metric minus that of the first run, in [-1, 1];
        nan for the first run.
    coverage, set_size : share of the lesions whose 95 % prediction set holds their diagnosis,
        in [0, 1], and the mean number of diagnoses in a set; nan where the model has too few
        calibration lesions.
    augrc, risk_at_90 : how often sure answers are wrong: the area under the generalised risk
        over coverage, in [0, 0.5], and the share of wrong ones among the surest 90 %, in [0,
        1]; 0 is best.
    mel_sensitivity, mel_specificity, malignant_sensitivity, malignant_specificity : of the
        screening rules at their thresholds, in [0, 1]; nan where the model has none.
    balanced_accuracy_low, balanced_accuracy_high : and so on: bounds of 95 % intervals over
        lesions, those of gaps paired.
    """

    run: str
    method: str
    balanced_accuracy: float
    balanced_accuracy_low: float
    balanced_accuracy_high: float
    macro_auc: float
    macro_auc_low: float
    macro_auc_high: float
    accuracy: float
    calibration_error: float
    calibration_error_before: float
    balanced_accuracy_gap: float
    balanced_accuracy_gap_low: float
    balanced_accuracy_gap_high: float
    macro_auc_gap: float
    macro_auc_gap_low: float
    macro_auc_gap_high: float
    coverage: float
    coverage_low: float
    coverage_high: float
    set_size: float
    set_size_low: float
    set_size_high: float
    augrc: float
    augrc_low: float
    augrc_high: float
    risk_at_90: float
    risk_at_90_low: float
    risk_at_90_high: float
    mel_sensitivity: float
    mel_sensitivity_low: float
    mel_sensitivity_high: float
    mel_specificity: float
    mel_specificity_low: float
    mel_specificity_high: float
    malignant_sensitivity: float
    malignant_sensitivity_low: float
    malignant_sensitivity_high: float
    malignant_specificity: float
    malignant_specificity_low: float
    malignant_specificity_high: float


@dataclass(frozen=True)
class EvaluatedSite:
    """A run's model on the test images of one site.

    Attributes
    ----------
    run, site : the run's folder, and the source that the table names.
    images, lesions, diagnoses : how many there are; means are over the diagnoses that the site
        has.
    balanced_accuracy, macro_auc, accuracy : in [0, 1]; with one diagnosis alone there is no
        AUC: it is nan.
    balanced_accuracy_low, balanced_accuracy_high : and so on: bounds of 95 % intervals over
        lesions; nan with one diagnosis alone.
    """

    run: str
    site: str
    images: int
    lesions: int
    diagnoses: int
    balanced_accuracy: float
    balanced_accuracy_low: float
    balanced_accuracy_high: float
    macro_auc: float
    macro_auc_low: float
    macro_auc_high: float
    accuracy: float
    accuracy_low: float
    accuracy_high: float


@dataclass(frozen=True)
class EvaluatedGroup:
    """One metric of a run's model on the test lesions of one group.

    Images of a lesion share its weight. What rests on too few lesions is nan.

    Attributes
    ----------
    run, dimension, group : the run's folder, by what lesions are grouped, and the group's
        name.
    lesions : how many there are; one with images in two groups counts a share in each.
    metric : which it is: "balanced_accuracy", "malignant_sensitivity", ...
    value, low, high : in [0, 1], with bounds of its own 95 % interval.
    gap, gap_low, gap_high, gap_detectable : the metric minus that of the rest, the lesions of
        the other groups, in [-1, 1], with bounds of an interval that holds for all gaps of the
        run together, and the smallest gap that these lesions would have shown with a chance of
        80 %.
    standardised_gap, standardised_gap_low : and so on: the same where group and rest have one
        mix of the diagnoses that both have.
    """

    run: str
    dimension: str
    group: str
    lesions: float
    metric: str
    value: float
    low: float
    high: float
    gap: float
    gap_low: float
    gap_high: float
    gap_detectable: float
    standardised_gap: float
    standardised_gap_low: float
    standardised_gap_high: float
    standardised_gap_detectable: float


@dataclass(frozen=True)
class Evaluation:
    """Several runs' models on the same test images.

    Attributes
    ----------
    synthetic : whether the images were generated: then the figures say nothing about skin
        lesions.
    images, lesions : how many there are.
    runs : in the order given.
    sites : each run on the images of each source; none where the table names no sources.
    groups : each metric of each run on each group; none where no groups were asked for.
    selection : how the images were chosen, and what is not among them.
    """

    synthetic: bool
    images: int
    lesions: int
    runs: tuple[EvaluatedRun, ...]
    sites: tuple[EvaluatedSite, ...]
    groups: tuple[EvaluatedGroup, ...]
    selection: Selection


def evaluated(judgement: Judgement) -> Evaluation:
    """Return the same as flat rows."""
    return Evaluation(
        judgement.synthetic,
        judgement.images,
        judgement.lesions,
        tuple(map(_run, judgement.runs)),
        tuple(_at_site(run.run, site) for run in judgement.runs for site in run.sites),
        tuple(row for run in judgement.runs for row in _by_group(run)),
        judgement.selection,
    )


def _run(judged: Judged) -> EvaluatedRun:
    quality, gap = judged.quality, judged.gap or _NO_GAP
    answers = quality.answers
    return EvaluatedRun(
        judged.run,
        judged.method,
        quality.balanced_accuracy,
        *quality.balanced_accuracy_interval,
        quality.macro_auc,
        *quality.macro_auc_interval,
        quality.accuracy,
        quality.calibration_error,
        quality.calibration_error_before,
        gap.balanced_accuracy,
        *gap.balanced_accuracy_interval,
        gap.macro_auc,
        *gap.macro_auc_interval,
        answers.coverage,
        *answers.coverage_interval,
        answers.set_size,
        *answers.set_size_interval,
        answers.augrc,
        *answers.augrc_interval,
        answers.risk_at_90,
        *answers.risk_at_90_interval,
        answers.mel_sensitivity,
        *answers.mel_sensitivity_interval,
        answers.mel_specificity,
        *answers.mel_specificity_interval,
        answers.malignant_sensitivity,
        *answers.malignant_sensitivity_interval,
        answers.malignant_specificity,
        *answers.malignant_specificity_interval,
    )


def _at_site(run: str, site: SiteFigures) -> EvaluatedSite:
    return EvaluatedSite(
        run,
        site.site,
        site.images,
        site.lesions,
        len(site.diagnoses),
        site.balanced_accuracy,
        *site.balanced_accuracy_interval,
        site.macro_auc,
        *site.macro_auc_interval,
        site.accuracy,
        *site.accuracy_interval,
    )


def _by_group(run: Judged) -> Iterator[EvaluatedGroup]:
    for group in run.by_group.groups if run.by_group else ():
        for metric, value in group.metrics.items():
            yield EvaluatedGroup(
                run.run,
                group.dimension,
                group.group,
                group.lesions,
                metric,
                *value,
                *astuple(group.gaps[metric]),
                *astuple(group.standardised[metric]),
            )
