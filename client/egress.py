"""The way out of a site: everything that leaves it passes :func:`release`, and is logged first.

What is not declared in ``client/declared.py`` does not leave, nor an array with a value for each
image or lesion; at a hospital, nor what its operator's rules forbid. A hospital's log is chained by
hashes (``client/sealed_log.py``), and written before its node gets the message.
"""

import hashlib
import math
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import numpy as np
from flwr.app import RecordDict
from numpy.typing import NDArray

from client import declared
from client.declared import AS_ASKED, MASKED, Array
from client.operator import Operator
from client.sealed_log import Line, SealedLog
from client.site import Site
from common.dataset import DIAGNOSES
from common.errors import RefusalError
from common.wire import Arrays, Value, size, unpack_arrays, unpack_values

FILE = "egress-log.jsonl"
REFUSED = "refused"

_RECORDS = {"arrays", "values"}
"""Of Flower, which hold ours; what binds an answer to its question is added to them later."""

_LONGEST = 1 << 16
"""Bytes of a text or key that leaves."""


class Asked(NamedTuple):
    """A question, as the way out needs to know it.

    Attributes
    ----------
    run : Flower's number of the run.
    round : the coordinator's number of the round.
    question : what is asked.
    arrays : that came with it.
    """

    run: int
    round: str
    question: str
    arrays: Arrays


def release(site: Site, asked: Asked, content: RecordDict, hidden: Arrays) -> RecordDict:
    """Return an answer's content, which may leave, after it was logged.

    Parameters
    ----------
    hidden : the sums that are in it under masks, checked before.

    Raises
    ------
    RefusalError
        If it may not leave.
    DataError
        If it cannot be logged.
    """
    if undeclared := content.keys() - _RECORDS:
        raise RefusalError(f"'{min(undeclared)}' is no record that may leave this site")
    arrays, values = unpack_arrays(content), unpack_values(content)
    if hidden:
        _check_arrays(site, declared.MASKS, arrays, {})
        if arrays[MASKED].size != sum(np.size(array) for array in hidden.values()):
            raise RefusalError(f"'{MASKED}' has not as many values as what it hides")
        _check_values(MASKED, values)
    else:
        check_sums(site, asked, arrays, hidden=False)
        _check_values(asked.question, values)
        _check_counts(site, values)
    if site.operator is not None:
        _log(site.operator, asked, {**arrays, **hidden}, size(content), hidden, _spent(site))
    return content


def release_refusal(operator: Operator | None, asked: Asked, content: RecordDict) -> RecordDict:
    """Return a refusal's content after it was logged.

    Raises
    ------
    DataError
        If it cannot be logged.
    """
    values = unpack_values(content)
    _check_values(REFUSED, values)
    if operator is not None:
        _log(operator, asked, {}, size(content), {}, refused=str(values[REFUSED]))
    return content


def check_sums(site: Site, asked: Asked, arrays: Arrays, hidden: bool) -> None:
    """Check arrays that are sums over a site's records.

    Parameters
    ----------
    hidden : whether the coordinator sees them only in a secure sum.

    Raises
    ------
    RefusalError
        If they are not those that are declared for the question, or a count is too small.
    """
    known = declared.SUMS.get(site.config.method, {}).get(asked.question, {})
    _check_arrays(site, known, arrays, asked.arrays)
    if not hidden:
        for name, array in arrays.items():
            if name in known and known[name].counts:
                _refuse_small(site, name, np.asarray(array))


def _check_counts(site: Site, values: Mapping[str, Value]) -> None:
    for name in declared.COUNTED_VALUES:
        if isinstance(value := values.get(name), int):
            _refuse_small(site, name, np.array(value))


def _refuse_small(site: Site, name: str, counts: NDArray[np.generic]) -> None:
    least = site.rules.least_count
    if ((np.asarray(counts) > 0) & (np.asarray(counts) < least)).any():
        raise RefusalError(
            f"'{name}' has a count below {least}, the operator's least; counts may be smaller in "
            "secure sums: set secure=true"
        )


def refuse_beyond_a_day(operator: Operator) -> None:
    """Refuse before anything is computed where a day's answers or bytes have left.

    Raises
    ------
    RefusalError
        If so.
    """
    if operator.rules.rounds_a_day or operator.rules.megabytes_a_day:
        with log_of(operator).opened() as lines:
            _refuse_beyond_a_day(operator, lines, 0)


def log_of(operator: Operator) -> SealedLog:
    """Return a hospital's log of all that left it."""
    path = (operator.state / FILE).resolve()
    name = hashlib.sha256(str(path).encode()).hexdigest()[:32]
    return SealedLog(path, operator.seals.expanduser() / f"egress-{name}.json")


def lines_of(operator: Operator) -> Iterator[str]:
    """Verify a hospital's log, and describe it.

    Raises
    ------
    DataError
        If it is not what was written.
    """
    with log_of(operator).opened() as lines:
        total = 0
        for number, line in enumerate(lines, 1):
            total += line["bytes"]
            about = f"{number:6}  {line['time']}  run {line['run']}  round {line['round']}"
            what = f"refused: {line[REFUSED]}" if line[REFUSED] else _described(line)
            yield printable(f"{about}  {line['question']}  {line['bytes']} bytes  {what}")
        yield f"verified: {len(lines)} messages, {total} bytes"


def printable(text: str) -> str:
    """Return a text on one line: parts are the coordinator's words, and might forge others."""
    return "".join(character if character.isprintable() else "?" for character in text)


def _described(line: Line) -> str:
    cells = []
    for each in line["records"]:
        norm = "" if each["norm"] is None else f" norm {each['norm']:.3g}"
        cells.append(f"{each['record']} {each['shape']}{norm}{' hidden' if each['hidden'] else ''}")
    spent = line["spent"]
    return ", ".join([*cells, *([] if spent is None else [f"epsilon {spent:.4g} spent"])])


def _log(
    operator: Operator,
    asked: Asked,
    arrays: Arrays,
    count: int,
    hidden: Arrays,
    spent: float | None = None,
    refused: str = "",
) -> None:
    records = [_record(n, np.asarray(a)) | {"hidden": n in hidden} for n, a in arrays.items()]
    line = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "run": str(asked.run),
        "round": asked.round,
        "question": asked.question,
        "bytes": count,
        "records": records,
        "spent": spent,
        REFUSED: refused,
    }
    log = log_of(operator)
    with log.opened() as lines:
        if not refused:
            _refuse_beyond_a_day(operator, lines, count)
        log.append(line)


def _record(name: str, array: NDArray[np.generic]) -> dict[str, Any]:
    norm = None if name == MASKED else float(np.linalg.norm(array.astype(np.float64)))
    if norm is not None and not math.isfinite(norm):
        raise RefusalError(f"'{name}' holds NaN or infinite values")
    return {
        "record": name,
        "shape": list(array.shape),
        "type": array.dtype.str,
        "bytes": array.nbytes,
        "norm": norm,
    }


def _refuse_beyond_a_day(operator: Operator, lines: list[Line], count: int) -> None:
    since = _day_ago()
    sent = [line["bytes"] for line in lines if line["time"] > since and not line[REFUSED]]
    rounds, most = operator.rules.rounds_a_day, operator.rules.megabytes_a_day * 1e6
    if rounds and len(sent) >= rounds:
        raise RefusalError(f"{rounds} answers left within a day, and the operator allows no more")
    if most and sum(sent) + count > most:
        raise RefusalError(f"more than the {most / 1e6:g} MB a day that the operator allows")


def _day_ago() -> str:
    return (datetime.now(UTC) - timedelta(days=1)).isoformat(timespec="seconds")


def _spent(site: Site) -> float | None:
    """Return what private runs have spent; None where this run promises none."""
    if not site.config.epsilon:
        return None
    from client.private import ledger_of  # most answers need no accounting

    return ledger_of(site).account().spent


def _check_arrays(site: Site, known: Mapping[str, Array], arrays: Arrays, asked: Arrays) -> None:
    sizes: dict[str, int] = {}
    for name, array in arrays.items():
        want = known.get(name, known.get(AS_ASKED))
        if want is None:
            raise RefusalError(f"'{name}' is no record that may leave this site")
        shape = want.shape
        if name not in known:
            if name not in asked:
                raise RefusalError(f"'{name}' is no record that may leave this site")
            shape = asked[name].shape
        if array.dtype.str != want.dtype or not _fits(array.shape, shape, sizes):
            raise RefusalError(
                f"'{name}' would leave as {array.dtype.str}{list(array.shape)}, "
                f"which is not how it is declared"
            )
    if missing := known.keys() - arrays.keys() - {AS_ASKED}:
        raise RefusalError(f"'{min(missing)}' is missing in this site's answer")
    _refuse_a_value_for_each_image(site, set(sizes.values()), asked)


def _fits(shape: tuple[int, ...], want: tuple[int | str, ...], sizes: dict[str, int]) -> bool:
    """Compare shapes; sizes that have a name must be the same wherever it stands."""
    if len(shape) != len(want):
        return False
    for got, wanted in zip(shape, want, strict=True):
        if isinstance(wanted, int):
            if got != wanted:
                return False
        elif wanted.startswith("triangle of "):
            side = sizes.get(wanted.removeprefix("triangle of "), -1)
            if got != side * (side + 1) // 2:
                return False
        elif sizes.setdefault(wanted, got) != got:
            return False
    return True


def _refuse_a_value_for_each_image(site: Site, sizes: set[int], asked: Arrays) -> None:
    """Refuse arrays that are as long as a hospital has images, lesions or records.

    What the settings or the coordinator's own arrays say is a length that it knows.
    """
    if site.operator is None:
        return
    unknown = sizes - {length for array in asked.values() for length in array.shape}
    # Only then is the table read.
    if unknown and (unknown - _public(site)) & _own_sizes(site):
        raise RefusalError(
            "an array as long as this site has images or lesions would leave; set other sizes "
            "(components, projection)"
        )


def _public(site: Site) -> set[int]:
    """Return the lengths that follow from the settings."""
    config, found = site.config, set()
    for length in (config.components, config.projection, 2 * config.fourier, config.fourier):
        found |= {length, length + 1, length + len(DIAGNOSES)}
    if "features" in vars(site):
        found.add(site.features.views.shape[2])
    return found


def _own_sizes(site: Site) -> set[int]:
    images, train = len(site.dataset), int((~site.held_out).sum())
    views = max(site.config.views, site.config.predictions)
    lesions = len(site.dataset.by_lesion.sizes)
    return {images, train, images - train, lesions, views * images, views * train}


def _check_values(question: str, values: Mapping[str, Value]) -> None:
    known = declared.VALUES.get(question, {})
    for name, value in values.items():
        if name not in known:
            raise RefusalError(f"'{name}' is no record that may leave this site")
        # A private site leaves its counts empty.
        empty = value == "" and name in declared.COUNTED_VALUES
        if type(value) is not known[name] and not empty:
            raise RefusalError(f"'{name}' would leave as {type(value).__name__}, undeclared")
        parts = value if isinstance(value, list) else [value]
        if any(isinstance(part, str | bytes) and len(part) > _LONGEST for part in parts):
            raise RefusalError(f"'{name}' is longer than what may leave this site")
