"""What a hospital's log says of a message that leaves, and how its operator reads it."""

import math
from collections import deque
from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client.egress.log_files import EgressLog, Part
from client.egress.questions import Question
from client.egress.quota import REFUSED, refuse_beyond
from client.egress.records import MASKED
from client.log_file import Line
from client.operator.site_rules import Operator
from common.text import printable
from common.wire.messages import Arrays


def refuse_beyond_quota(operator: Operator, question: str) -> None:
    """Refuse, before anything is computed, where the operator's quota is used up.

    Raises
    ------
    RefusalError
        If it is used up.
    """
    with EgressLog.of(operator).opened() as sums:
        refuse_beyond(operator.rules, sums, question, 0)


def add(
    operator: Operator,
    question: Question,
    arrays: Arrays,
    count: int,
    hidden: Collection[str],
    spent: float | None = None,
    refused: str = "",
) -> None:
    """Log a message that is to leave, on disk when this returns.

    Parameters
    ----------
    arrays : its sums, by name and in any shape.
    count : bytes of the message.
    hidden : names of those of the sums that are under masks.
    spent : epsilon that private runs have spent; None where this run promises none.
    refused : why the question is not answered; empty if it is.

    Raises
    ------
    RefusalError
        If an answer is more than the operator's quota allows.
    DataError
        If it cannot be logged.
    """
    records = [_record(n, np.asarray(a)) | {"hidden": n in hidden} for n, a in arrays.items()]
    line = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "run": str(question.run),
        "round": question.round,
        "question": question.name,
        "bytes": count,
        "records": records,
        "spent": spent,
        REFUSED: refused,
    }
    log = EgressLog.of(operator)
    with log.opened() as sums:
        if not refused:
            refuse_beyond(operator.rules, sums, question.name, count)
        log.append(line)


def lines_of(operator: Operator) -> Iterator[str]:
    """Verify a hospital's log, and describe it; the last line says what was verified.

    Raises
    ------
    DataError
        If it is not what was written.
    """
    messages, total, missing = 0, 0, []
    for part in EgressLog.of(operator).files():
        if part.lines is None:
            missing.append(_place_of(part))
            yield f"missing: {missing[-1]}"
            continue
        for number, line in enumerate(part.lines, part.start.lines + 1):
            total += line["bytes"]
            yield printable(f"{number:6}  {_about(line)}")
        messages += len(part.lines)
    verified = f"verified: {messages} messages, {total} bytes"
    yield "; not here: ".join([verified, *([", ".join(missing)] if missing else [])])


def verified(operator: Operator) -> str:
    """Verify a hospital's log; return one line about it.

    Raises
    ------
    DataError
        If it is not what was written.
    """
    return deque(lines_of(operator), 1)[0]


def _place_of(part: Part) -> str:
    return f"{part.path.name}, messages {part.start.lines + 1} to {part.end.lines}"


def _about(line: Line) -> str:
    what = f"refused: {line[REFUSED]}" if line[REFUSED] else _described(line)
    where = f"run {line['run']}  round {line['round']}  {line['question']}"
    return f"{line['time']}  {where}  {line['bytes']} bytes  {what}"


def _described(line: Line) -> str:
    cells = []
    for each in line["records"]:
        norm = "" if each["norm"] is None else f" norm {each['norm']:.3g}"
        cells.append(f"{each['record']} {each['shape']}{norm}{' hidden' if each['hidden'] else ''}")
    spent = line["spent"]
    return ", ".join([*cells, *([] if spent is None else [f"epsilon {spent:.4g} spent"])])


def _record(name: str, array: NDArray[np.generic]) -> dict[str, Any]:
    norm = None if name == MASKED else float(np.linalg.norm(array.astype(np.float64)))
    return {
        "record": name,
        "shape": list(array.shape),
        "type": array.dtype.str,
        "bytes": array.nbytes,
        # Whether a sum is a number is the coordinator's to check: a refusal would tell more sites'
        # apart than a sum of all of them does.
        "norm": norm if norm is not None and math.isfinite(norm) else None,
    }
