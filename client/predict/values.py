"""Answers as plain values for programs: JSON, and rows of a table."""

import math
from collections.abc import Mapping
from dataclasses import asdict

from common.answers.answer import Answer, Metadata, PredictionSet, Screening, Unreadable
from common.answers.operating import targets_of
from common.data.metadata import BLOCKS
from common.json_types import Json
from common.task import Task
from common.text import printable

_OF_TARGET = (
    *("flagged", "probability", "threshold"),
    *("sensitivity", "sensitivity_low", "sensitivity_high"),
    *("specificity", "specificity_low", "specificity_high"),
    *("group", "common_threshold"),
)
_OF_SET = ("prediction_set", "coverage", "set_threshold", "set_lesions", "without_guarantee")

_FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠", "'")  # noqa: RUF001 - some spreadsheets know them
"""How a cell begins that a spreadsheet would compute; the apostrophe that prevents it, too."""

_SEPARATOR = "; "

Cell = str | float | bool | None


def columns(task: Task) -> tuple[str, ...]:
    """Return the columns of a table of answers, the same for every model of a task."""
    return (
        *("image", "error", "diagnosis", "name", "malignant", "probability"),
        *(f"probability_{code}" for code in task.codes),
        *(f"trained_probability_{code}" for code in task.codes),
        *("stands_out", "times_base_rate"),
        *(f"screening_{target}_{name}" for target in targets_of(task) for name in _OF_TARGET),
        *_OF_SET,
        *("refer", "distance", "notes", "model"),
        *BLOCKS,
        *("diagnosis_without", "flagged_without"),
        *(f"probability_without_{code}" for code in task.codes),
    )


def values(answer: Answer | Unreadable) -> Json:
    """Return an answer as JSON holds it: the fields by name; what is no number is null."""
    return _plain({name: value for name, value in asdict(answer).items() if name != "task"})


def row(answer: Answer | Unreadable, task: Task) -> list[str]:
    """Return the cells of an answer, in the order of :func:`columns`; what there is not is empty.

    A text that a spreadsheet would take for a formula begins with an apostrophe. A text of several
    parts has them between semicolons.
    """
    cells: dict[str, Cell] = {"image": answer.image}
    if isinstance(answer, Unreadable):
        cells["error"] = answer.error
    else:
        cells.update(_answer_cells(answer))
    return [_cell(cells.get(column)) for column in columns(task)]


def _answer_cells(answer: Answer) -> dict[str, Cell]:
    cells: dict[str, Cell] = {
        "diagnosis": answer.diagnosis,
        "name": answer.name,
        "malignant": answer.malignant,
        "probability": answer.probability,
        "stands_out": answer.stands_out,
        "times_base_rate": answer.times_base_rate,
        "refer": _SEPARATOR.join(answer.refer),
        "distance": answer.distance,
        "notes": _SEPARATOR.join(answer.notes),
        "model": answer.model,
    }
    cells |= {f"probability_{code}": share for code, share in answer.probabilities.items()}
    trained = answer.trained_probabilities or {}
    cells |= {f"trained_probability_{code}": share for code, share in trained.items()}
    for rule in answer.screening:
        cells |= _screening_cells(rule)
    if answer.prediction_set is not None:
        cells |= _set_cells(answer.prediction_set)
    if answer.metadata is not None:
        cells |= _metadata_cells(answer.metadata)
    return cells


def _screening_cells(rule: Screening) -> dict[str, Cell]:
    found = (
        *(rule.flagged, rule.probability, rule.threshold),
        *(rule.sensitivity, *rule.sensitivity_interval),
        *(rule.specificity, *rule.specificity_interval),
        *(rule.group, rule.common_threshold),
    )
    names = (f"screening_{rule.target}_{name}" for name in _OF_TARGET)
    return dict(zip(names, found, strict=True))


def _set_cells(found: PredictionSet) -> dict[str, Cell]:
    cells = (
        _SEPARATOR.join(found.diagnoses),
        found.coverage,
        found.threshold,
        found.lesions,
        _SEPARATOR.join(found.without_guarantee),
    )
    return dict(zip(_OF_SET, cells, strict=True))


def _metadata_cells(found: Metadata) -> dict[str, Cell]:
    alone = found.probabilities_without
    return {
        **found.used,
        "diagnosis_without": found.diagnosis_without,
        "flagged_without": _SEPARATOR.join(found.flagged_without),
        **{f"probability_without_{code}": share for code, share in alone.items()},
    }


def _cell(value: Cell) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case str():
            text = printable(value)
            return f"'{text}" if text.lstrip().startswith(_FORMULA) else text
    return repr(value) if math.isfinite(value) else ""


def _plain(value: object) -> Json:
    match value:
        case Mapping():
            return {str(key): _plain(item) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
        case float() if not math.isfinite(value):
            return None
        case bool() | int() | float() | str() | None:
            return value
    raise TypeError(f"{type(value).__name__} is no plain value")
