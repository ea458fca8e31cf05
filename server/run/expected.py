"""What a run's model said of the lesions that it was tested on, beside the model: for `drift`."""

from pathlib import Path

from common.answers.counts import AnswerCounts
from common.answers.watch import WatchCounts
from common.storage.verified import read_arrays, write_arrays
from common.task import Task

EXPECTED_FILE = "expected.safetensors"


def write_expected(folder: Path, counts: WatchCounts) -> None:
    """Write counts over test lesions into a run's folder.

    Raises
    ------
    DataError
        If they cannot be written.
    """
    write_arrays(folder / EXPECTED_FILE, counts.to_record(), {})


def read_expected(folder: Path, task: Task) -> WatchCounts | None:
    """Read the counts of a run of a task; None if it keeps none.

    Raises
    ------
    DataError
        If they are damaged.
    ReplyError
        If they are of another task.
    """
    try:
        arrays, _ = read_arrays(folder / EXPECTED_FILE)
    except FileNotFoundError:
        return None
    return WatchCounts.expected(AnswerCounts.zero(task)).from_record(arrays)
