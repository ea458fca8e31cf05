"""Answers as text for a person at a terminal."""

from collections.abc import Iterator
from textwrap import wrap

from client.predict import words
from common.answers.answer import Answer, Unreadable
from common.text import printable

_LABEL, _WIDTH = 16, 100
"""Columns of the labels, and of a whole line."""

_JOINED = "\u00a0%"


def block(answer: Answer | Unreadable) -> str:
    """Return what is printed of one image, with a line break at its end."""
    if isinstance(answer, Unreadable):
        return f"{printable(answer.image)}: no answer: {printable(answer.error)}\n"
    lines = [printable(answer.image)]
    for label, text in _parts(answer):
        first, *more = _wrapped(text)
        lines += [f"  {label:{_LABEL - 2}}{first}", *(" " * _LABEL + line for line in more)]
    return "\n".join(lines) + "\n"


def _wrapped(text: str) -> list[str]:
    """Break a text into lines; a number and its per cent stay together."""
    joined = printable(text).replace(" %", _JOINED)
    lines = wrap(joined, _WIDTH - _LABEL, break_on_hyphens=False, break_long_words=False)
    return [line.replace(_JOINED, " %") for line in lines] or [""]


def _parts(answer: Answer) -> Iterator[tuple[str, str]]:
    """Yield a label and a text for each thing said; what asks for a person comes first."""
    if answer.refer:
        yield "ask a person", f"refer to a person: {'; '.join(answer.refer)}"
    yield "likeliest", words.likeliest(answer)
    if rare := words.stands_out(answer):
        yield "stands out", f"for how rare it is: {rare} (rule balanced)"
    for rule in answer.screening:
        yield "screening", f"{words.flag(rule)} ({words.operating_point(rule)})"
        if common := words.common_threshold(rule):
            yield "", common
    yield "not excluded", _not_excluded(answer)
    for text in words.following(answer):
        yield "next", text
    if patient := words.patient(answer):
        yield "patient", f"{patient}: {words.changed(answer)}"
    for text in words.without(answer):
        yield "without it", text
    if before := _before(answer):
        yield "before", before
    if distance := words.distance(answer):
        yield "distance", distance
    for note in answer.notes:
        yield "note", note


def _not_excluded(answer: Answer) -> str:
    found = answer.prediction_set
    if found is None:
        return "unknown: this model has no calibration lesions, so no prediction set"
    return f"{words.diagnoses(found.diagnoses, answer.task)} ({words.promise(found)})"


def _before(answer: Answer) -> str | None:
    """Say the likeliest diagnosis at the training sites' frequencies, where others are used."""
    trained = answer.trained_probabilities
    if trained is None:
        return None
    code = next(iter(trained))
    return (
        f"at the training sites' frequencies: likeliest {words.named(code, answer.task)}, "
        f"{words.percent(trained[code])}"
    )
