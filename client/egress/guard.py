"""The guard of a site: it checks and logs everything that leaves, in :func:`release`.

Only what ``client/egress/allowlist`` declares leaves, in the length that settings and question
determine, and at a hospital only what its operator's rules allow. A hospital's log is chained by
hashes (``client/egress/log_files.py``) and written before its node gets the message.
"""

from collections.abc import Mapping

import numpy as np
from flwr.app import RecordDict
from numpy.typing import NDArray

from client.egress import log, records
from client.egress.allowlist import allowlist_of
from client.egress.answer import Answer
from client.egress.questions import Question
from client.egress.quota import REFUSED
from client.egress.records import MASKED, Array
from client.operator.site_rules import Operator
from client.site import Site
from common.errors import Reason, RefusalError
from common.task import HAM10000, KNOWN, Task
from common.wire.fixed_point import masked_length
from common.wire.messages import Arrays, Value, pack, size, unpack_arrays, unpack_values

_LONGEST = 1 << 16
"""Most bytes of a text or key that leaves."""


def release(site: Site, question: Question, answer: Answer) -> RecordDict:
    """Check and log an answer, and return it as a message's content, which may leave.

    Raises
    ------
    RefusalError
        If it may not leave.
    DataError
        If it cannot be logged.
    """
    content = pack(answer.arrays, answer.values)
    arrays, values = unpack_arrays(content), unpack_values(content)  # as they will leave
    _check(site, question, Answer(arrays, values, answer.hidden))
    if site.operator is not None:
        every, hidden = {**arrays, **answer.hidden}, answer.hidden.keys()
        log.add(site.operator, question, every, size(content), hidden, _spent(site))
    return content


def release_refusal(
    operator: Operator | None, question: Question, values: Mapping[str, Value]
) -> RecordDict:
    """Check and log a refusal, and return it as a message's content, which may leave.

    Raises
    ------
    RefusalError
        If it may not leave.
    DataError
        If it cannot be logged.
    """
    content = pack({}, values)
    _check_values(REFUSED, values)
    if operator is not None:
        reason = Reason(str(values[REFUSED])).value
        log.add(operator, question, {}, size(content), (), refused=reason)
    return content


def _check(site: Site, question: Question, answer: Answer) -> None:
    """Check that an answer is as declared for its question, and that no count in it is too small.

    Masked counts may be small: the coordinator sees only their sum over sites.
    """
    sums = allowlist_of(site.config.method).SUMS
    declared = records.arrays_of(sums.get(question.name, {}), site, question)
    if answer.hidden:
        _check_arrays(site, declared, answer.hidden, question)
        masks = records.masks(masked_length(answer.hidden))
        _check_arrays(site, masks, answer.arrays, question)
        _check_values(MASKED, answer.values)
        return
    _check_arrays(site, declared, answer.arrays, question)
    for name, array in answer.arrays.items():
        if name in declared and declared[name].counts:
            _refuse_small(site, name, np.asarray(array), declared[name].groups)
    _refuse_small_groups(site, declared, answer.arrays)
    _check_values(question.name, answer.values, site.config.task)
    _check_counts(site, answer.values)


def _check_counts(site: Site, values: Mapping[str, Value]) -> None:
    for name in records.COUNTED_VALUES:
        if isinstance(value := values.get(name), int):
            _refuse_small(site, name, np.array(value))


def _refuse_small(site: Site, name: str, counts: NDArray[np.generic], groups: bool = False) -> None:
    least = max(site.rules.least_count, site.least_group if groups else 0)
    if ((np.asarray(counts) > 0) & (np.asarray(counts) < least)).any():
        raise RefusalError(
            Reason.FEW,
            f"'{name}' has a count below {least}, the operator's least; counts may be smaller in "
            "secure sums: set secure=true",
        )


def _refuse_small_groups(site: Site, declared: Mapping[str, Array], arrays: Arrays) -> None:
    """Refuse arrays over groups of lesions with one that is too small, or in some of them only."""
    totals = {
        name: np.asarray(array, np.float64).reshape(len(array), -1).sum(axis=1)
        for name, array in arrays.items()
        if name in declared and declared[name].by_group
    }
    for name, total in totals.items():
        if declared[name].counts:
            _refuse_small(site, name, total, groups=True)
    empty = [total == 0 for name, total in totals.items() if declared[name].groups]
    if any((total[none] != 0).any() for none in empty for total in totals.values()):
        raise RefusalError(Reason.UNDECLARED, "a group without lesions has other sums")


def _spent(site: Site) -> float | None:
    """Return what private runs have spent; None where this run promises none."""
    if not site.config.epsilon:
        return None
    from client.privacy.paid_step import ledger_of  # most answers need no accounting

    return ledger_of(site).last_read.spent


def _check_arrays(
    site: Site, known: Mapping[str, Array], arrays: Arrays, question: Question
) -> None:
    for name, array in arrays.items():
        if name not in known:
            raise _undeclared(name)
        want = known[name]
        if array.dtype.str != want.dtype or array.shape != want.sizes(site, question):
            raise RefusalError(
                Reason.UNDECLARED,
                f"'{name}' would leave as {array.dtype.str}{list(array.shape)}, "
                "which is not how it is declared",
            )
    if missing := known.keys() - arrays.keys():
        raise RefusalError(Reason.UNDECLARED, f"'{min(missing)}' is missing in this site's answer")


def _undeclared(name: str) -> RefusalError:
    return RefusalError(Reason.UNDECLARED, f"'{name}' is no record that may leave this site")


def _check_values(question: str, values: Mapping[str, Value], task: Task = HAM10000) -> None:
    known = records.VALUES.get(question, {})
    flags = {"classes": task.n_classes, "others": len(KNOWN)}
    for name, value in values.items():
        if name not in known:
            raise _undeclared(name)
        # A private site leaves its counts empty.
        empty = value == "" and name in records.COUNTED_VALUES
        if type(value) is not known[name] and not empty:
            raise RefusalError(
                Reason.UNDECLARED, f"'{name}' would leave as {type(value).__name__}, undeclared"
            )
        parts = value if isinstance(value, list) else [value]
        if name in flags and list(map(type, parts)) != [bool] * flags[name]:
            raise RefusalError(Reason.UNDECLARED, f"'{name}' is not one flag for each diagnosis")
        if any(isinstance(part, str | bytes) and len(part) > _LONGEST for part in parts):
            raise RefusalError(
                Reason.UNDECLARED, f"'{name}' is longer than what may leave this site"
            )
