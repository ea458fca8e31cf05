"""Every question that a site answers: what comes with it, in which form and range.

All is checked against settings and what is public before a question is answered, so that neither
the fact nor the text of a refusal depends on a lesion. Within these ranges no sum over records
overflows double precision.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from flwr.app import RecordDict
from numpy.typing import NDArray
from pydantic import Field, TypeAdapter, ValidationError

from client.counts.group_weights import balanced_groups
from client.site import Site
from common.answers.appearance import SIZE
from common.data.balance import GROUP_COUNTS
from common.errors import Reason, RefusalError, ReplyError
from common.wire.messages import PROGRAM, Arrays, Value, unpack_arrays, unpack_values
from common.wire.secure_sums import KEY, PEERS, RECORD, UNMASK

LARGEST = 1e9
"""Largest number in a question of an exact method."""

LARGEST_MAP = 1e15
"""Of a feature map's, such as one over the deviation of a feature that hardly varies; and of a
calibration, whose solver may try anything."""

_RECORDS = {"arrays", "values", PROGRAM, RECORD}


@dataclass(frozen=True)
class Form:
    """What an array that comes with a question must look like.

    Attributes
    ----------
    shape : sizes; ``()`` for a number, None for a size that the method compares with its map's.
    low, high : range of its numbers.
    dtype : as NumPy writes it.
    """

    shape: tuple[int | None, ...]
    low: float = -LARGEST
    high: float = LARGEST
    dtype: Literal["<f8", "<f4", "<f2"] = "<f8"

    def fits(self, array: NDArray[np.generic]) -> bool:
        """Tell whether ``array`` has this shape, type and range; NaN is in no range."""
        if array.dtype.str != self.dtype or array.ndim != len(self.shape):
            return False
        sizes = zip(array.shape, self.shape, strict=True)
        if any(wanted not in (None, size) for size, wanted in sizes):
            return False
        within = np.less_equal(self.low, array) & np.less_equal(array, self.high)
        return bool(within.all())


Type = Any
"""Type of a plain value, of which pydantic makes a :class:`TypeAdapter`."""


def text(pattern: str) -> Type:
    """Return the type of a text that a regular expression matches."""
    return Annotated[str, Field(strict=True, pattern=pattern)]


def whole(low: int, high: int) -> Type:
    """Return the type of a whole number from ``low`` to ``high``."""
    return Annotated[int, Field(strict=True, ge=low, le=high)]


def sequence(item: Type, least: int, most: int) -> Type:
    """Return the type of a list with so many items."""
    return Annotated[list[item], Field(min_length=least, max_length=most)]


def _bytes(size: int) -> Type:
    return Annotated[bytes, Field(strict=True, min_length=1, max_length=size)]


Forms = Mapping[str, Form]
Values = Mapping[str, Value]


def rule_forms(site: Site) -> Forms:
    """Return the forms of what makes probabilities and decisions of scores, by the run's task."""
    n_classes = site.config.task.n_classes
    return {
        "calibration": Form((2, n_classes), -LARGEST_MAP, LARGEST_MAP),
        "base_rates": Form((n_classes,), 0),
    }


@dataclass(frozen=True)
class QuestionForm:
    """What must come with a question.

    Attributes
    ----------
    values : types of its plain values, by name, beside its own name.
    arrays : returns the forms of its arrays, given a site and its plain values.
    optional : whether single arrays may be missing.
    """

    values: Mapping[str, Type] = field(default_factory=dict)
    arrays: Callable[[Site, Values], Forms] = lambda site, values: {}
    optional: bool = False


APPEARANCE_QUESTIONS: Mapping[str, QuestionForm] = {
    "appearance": QuestionForm(),
    "distances": QuestionForm(
        {},
        lambda site, values: {
            "mean": Form((SIZE,)),
            "whitening": Form((SIZE, SIZE), -LARGEST_MAP, LARGEST_MAP),
        },
    ),
}
"""Questions about how lesions look, of every method that may answer exactly."""


def group_forms(site: Site) -> Forms:
    """Return the form of the counts over all sites that groups are balanced by; none without."""
    if site.config.balanced_groups is None:
        return {}
    shape = (site.config.task.n_classes, balanced_groups(site).size)
    return {GROUP_COUNTS: Form(shape, 0)}


def _nothing_but_groups(site: Site, _: Values) -> Forms:
    """Return no forms; where a run balances no groups, the question is refused."""
    assert balanced_groups(site)
    return {}


GROUP_QUESTIONS: Mapping[str, QuestionForm] = {GROUP_COUNTS: QuestionForm({}, _nothing_but_groups)}
"""The question of methods that balance groups."""

FLAG = Annotated[bool, Field(strict=True)]
DIGEST = text("^[0-9a-f]{64}$")
RUN = text("^[0-9a-f]{1,64}$")
NUMBER = whole(0, 1 << 31)
"""Of a round, or of a step."""

_NAME = text(r"^[\w.]{1,100}$")
_MOST_SITES = 10_000
_LONGEST_ENVELOPE = 1 << 16

JOIN, CLOSE = "join", "close"
ROUND = "hinge"
"""QuestionForm of an SVM's rounds, of which an operator allows so many."""

OF_ALL: Mapping[str, QuestionForm] = {
    JOIN: QuestionForm(),
    CLOSE: QuestionForm({"finished": FLAG}),
    KEY: QuestionForm({"run": RUN}),
    PEERS: QuestionForm(
        {
            "run": RUN,
            "names": sequence(text(r"^.{1,100}$"), 0, _MOST_SITES),
            "keys": sequence(_bytes(32), 0, _MOST_SITES),
            "signatures": sequence(_bytes(64), 0, _MOST_SITES),
        }
    ),
    UNMASK: QuestionForm(
        {
            "run": RUN,
            "round": NUMBER,
            "envelopes": sequence(_bytes(_LONGEST_ENVELOPE), 0, _MOST_SITES),
        }
    ),
}
"""Questions of every method, which tell nothing of single images."""


class Question(NamedTuple):
    """A question as it arrived.

    Attributes
    ----------
    run : Flower's number of the run.
    round : the coordinator's number of the round.
    name : the name of the question; empty where that cannot be read.
    arrays, values : that came with it, by name; the shapes are checked against a :class:`Form`.
    """

    run: int
    round: str
    name: str = ""
    arrays: Arrays = MappingProxyType({})
    values: Values = MappingProxyType({})

    def read(self, content: RecordDict) -> "Question":
        """Return the question with what its message holds.

        Raises
        ------
        RefusalError
            If that cannot be read.
        """
        try:
            arrays, values = unpack_arrays(content), unpack_values(content)
        except ReplyError as error:
            raise RefusalError(Reason.FORM, str(error)) from error
        if unknown := content.keys() - _RECORDS:
            raise RefusalError(Reason.FORM, f"a question has no record '{min(unknown)}'")
        try:
            name = TypeAdapter(_NAME).validate_python(values.get("question"))
        except ValidationError as error:
            raise RefusalError(Reason.FORM, "the message does not say what it asks") from error
        return self._replace(name=name, arrays=arrays, values=values)


def check(site: Site, question: Question, forms: Mapping[str, QuestionForm]) -> None:
    """Check all that comes with a question, without reading the site's data.

    Parameters
    ----------
    forms : the forms of the questions of the run's method, by name.

    Raises
    ------
    RefusalError
        If the run's method has no such question, or something is missing, unknown, in another
        form or out of range.
    """
    known = {**OF_ALL, **forms}
    if question.name not in known:
        raise _bad(f"no question '{question.name}' in method {site.config.method}")
    form = known[question.name]
    _check_names(question.values.keys() - {"question"}, set(form.values), set(form.values))
    for name, type_ in form.values.items():
        try:
            TypeAdapter(type_).validate_python(question.values[name])
        except ValidationError as error:
            raise _bad(f"value '{name}' is {error.errors()[0]['msg']}") from error
    arrays = form.arrays(site, question.values)
    required = set() if form.optional else set(arrays)
    _check_names(question.arrays.keys(), required, set(arrays))
    for name, array in question.arrays.items():
        if not arrays[name].fits(np.asarray(array)):
            raise _bad(
                f"array '{name}', {array.dtype.str}{list(array.shape)}, is not {arrays[name]}"
            )


def _check_names(names: Collection[str], required: set[str], known: set[str]) -> None:
    if unknown := set(names) - known:
        raise _bad(f"nothing named '{min(unknown)}' belongs to this question")
    if missing := required - set(names):
        raise _bad(f"'{min(missing)}' is missing in this question")


def _bad(detail: str) -> RefusalError:
    return RefusalError(Reason.FORM, detail)
