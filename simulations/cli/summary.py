"""Evaluations of runs as text that a newcomer can read."""

from math import isnan

from common.formats import estimate, markdown_table, rounded
from common.synthetic_note import synthetic_note
from simulations.cli.evaluated_groups import group_tables
from simulations.cli.evaluated_sites import selected, site_tables
from simulations.evaluation.judgement import Gap, Judged, Judgement

_EVALUATION_COLUMNS = (
    "run",
    "balanced accuracy (95 % interval)",
    "macro AUC (95 % interval)",
    "accuracy",
    "calibration error",
    "balanced accuracy minus the first run's (95 % interval)",
    "macro AUC minus the first run's (95 % interval)",
)

_ANSWER_COLUMNS = (
    "run",
    "coverage of 95 % sets",
    "diagnoses in a set",
    "AUGRC",
    "wrong of the surest 90 %",
    "melanoma screening: sensitivity",
    "specificity",
    "malignant screening: sensitivity",
    "specificity",
)


def evaluation(judgement: Judgement, by_site: bool = False) -> str:
    """Return several runs on the same test lesions as Markdown.

    Parameters
    ----------
    by_site : whether the runs on the lesions of each site are shown too.
    """
    lines = [
        *synthetic_note(judgement.synthetic),
        *selected(judgement),
        markdown_table(_EVALUATION_COLUMNS, map(_judged_row, judgement.runs)),
        "",
        markdown_table(_ANSWER_COLUMNS, map(_answer_row, judgement.runs)),
        "",
        *(site_tables(judgement) if by_site else ()),
        *group_tables(judgement),
        f"All runs are judged on the same {judgement.images} test images of {judgement.lesions} "
        "lesions. Intervals are bootstrapped over lesions, those of differences paired: they say "
        "what other test lesions would change, not what training again would. In the second table "
        "the images of a lesion share its weight; AUGRC is 0 at best, 0.5 at worst.",
    ]
    return "\n".join(lines)


def _judged_row(run: Judged) -> list[str]:
    quality = run.quality
    return [
        run.run,
        estimate(quality.balanced_accuracy, quality.balanced_accuracy_interval),
        estimate(quality.macro_auc, quality.macro_auc_interval),
        rounded(quality.accuracy),
        rounded(quality.calibration_error),
        *_gap_cells(run.gap),
    ]


def _answer_row(run: Judged) -> list[str]:
    a = run.quality.answers
    figures = (
        (a.coverage, a.coverage_interval),
        (a.set_size, a.set_size_interval),
        (a.augrc, a.augrc_interval),
        (a.risk_at_90, a.risk_at_90_interval),
        (a.mel_sensitivity, a.mel_sensitivity_interval),
        (a.mel_specificity, a.mel_specificity_interval),
        (a.malignant_sensitivity, a.malignant_sensitivity_interval),
        (a.malignant_specificity, a.malignant_specificity_interval),
    )
    return [run.run, *("none" if isnan(v) else estimate(v, bounds) for v, bounds in figures)]


def _gap_cells(gap: Gap | None) -> tuple[str, str]:
    """Return the differences in balanced accuracy and macro AUC, signed."""
    if gap is None:
        return "-", "-"
    return (
        estimate(gap.balanced_accuracy, gap.balanced_accuracy_interval, "+.3f"),
        estimate(gap.macro_auc, gap.macro_auc_interval, "+.3f"),
    )
