"""The task of a simulated run whose settings name none: that of its data."""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from common.config.task_settings import settings_for
from common.data.dataset import Dataset
from common.errors import DataError
from common.task import HAM10000, Task, usual_task

_log = logging.getLogger(__name__)


class TaskSettings(Protocol):
    """What has the settings of a task: a run's configuration, or a study."""

    @property
    def diagnoses(self) -> tuple[str, ...]:
        """Codes, or the name of a known task."""

    @property
    def malignant(self) -> tuple[str, ...]:
        """Malignant codes."""

    @property
    def mapping(self) -> tuple[str, ...]:
        """Diagnoses that count as others."""

    @property
    def names(self) -> tuple[str, ...]:
        """Full names."""


def agreed(chosen: TaskSettings, own: Task) -> dict[str, tuple[str, ...]]:
    """Return the settings to add to those that were chosen.

    None where they say anything of the task, or the data have the seven of HAM10000, which are
    the default.

    Parameters
    ----------
    own : the task of the data.
    """
    says = (chosen.diagnoses, chosen.malignant, chosen.mapping, chosen.names)
    return {} if any(says) or own == HAM10000 else settings_for(own)


def task_of_sites(folders: Iterable[Path]) -> Task:
    """Return the task of several folders: that of all, or one that has the diagnoses of each.

    A folder that cannot be read has no say; its site says what is wrong with it.
    """
    tasks = []
    for folder in folders:
        try:
            tasks.append(Dataset.open(folder).task)
        except DataError as error:
            _log.debug("%s", error)
    if len(set(tasks)) <= 1:
        return tasks[0] if tasks else HAM10000
    return usual_task({code for task in tasks for code in task.codes})


def for_task(dataset: Dataset, task: Task) -> Dataset:
    """Return a dataset for a task; say which images that leaves out."""
    kept = dataset.for_task(task)
    if words := kept.left_out_in_words:
        _log.warning("%s", words)
    return kept
