"""From the settings of a run's diagnoses to its task."""

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache

from common.errors import ConfigError
from common.task import HAM10000, TASKS, Task
from common.text import suggestion


@lru_cache(maxsize=64)
def task_of(
    diagnoses: tuple[str, ...],
    malignant: tuple[str, ...],
    mapping: tuple[str, ...],
    names: tuple[str, ...],
) -> Task:
    """Return the task that settings describe.

    Parameters
    ----------
    diagnoses : codes, or the name of a known task; empty for the seven of HAM10000.
    malignant : malignant codes; empty for those that are known to be.
    mapping : items like ``scc->bcc`` or ``akiec+bcc->kc``.
    names : items like ``kc:keratinocyte carcinoma``.

    Raises
    ------
    ConfigError
        If they contradict each other.
    """
    codes = _codes(diagnoses)
    full = _once("names", ((code, name.strip()) for code, _, name in _halves(names, ":")))
    merged = _once("mapping", _mapped(mapping))
    return Task.of(codes, full, tuple(map(str.lower, malignant)), merged)


def settings_for(task: Task) -> dict[str, tuple[str, ...]]:
    """Return the settings that describe a task, so that a run's configuration names all of it."""
    return {
        "diagnoses": task.codes,
        "malignant": task.malignant,
        "mapping": tuple(f"{code}->{target}" for code, target in task.mapping),
        "names": tuple(f"{code}:{name}" for code, name in zip(task.codes, task.names, strict=True)),
    }


def _codes(diagnoses: tuple[str, ...]) -> tuple[str, ...]:
    match [code.lower() for code in diagnoses]:
        case []:
            return HAM10000.codes
        case [name]:
            if name not in TASKS:
                raise ConfigError(
                    f"'diagnoses' is {name}, which is no known task{suggestion(name, TASKS)}; "
                    f"name one of {', '.join(TASKS)}, or two diagnoses or more"
                )
            return TASKS[name].codes
        case codes:
            return tuple(codes)


def _halves(items: Iterable[str], mark: str) -> Iterator[tuple[str, str, str]]:
    for item in items:
        left, _, right = item.partition(mark)
        yield left.strip().lower(), mark, right


def _mapped(mapping: Iterable[str]) -> Iterator[tuple[str, str]]:
    for sources, _, target in _halves(mapping, "->"):
        for code in sources.split("+"):
            yield code.strip(), target.strip().lower()


def _once(key: str, pairs: Iterable[tuple[str, str]]) -> Mapping[str, str]:
    known: dict[str, str] = {}
    for code, value in pairs:
        if known.setdefault(code, value) != value:
            raise ConfigError(f"'{key}' says two things of '{code}'; say one")
    return known
