"""A finished run, read from its folder: plain values, and where its model lies."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

from common.config.task_settings import task_of
from common.errors import DataError
from common.json_types import number
from common.task import Task
from server.run.folder import CONFIG_FILE, MODEL_FILE, ROUNDS_FILE, STATISTICS_FILE, read_metrics
from server.run.progress import TRAINING_FILE

RUN = "run"
"""The run's folder in the one given for results, beside the sites'."""


@dataclass(frozen=True)
class SiteMetrics:
    """How a model does on test images: of one site, or of all together.

    What is not defined, such as an AUC without images of two diagnoses, is nan.

    Attributes
    ----------
    site : the site's name; "all sites" for all together.
    n : number of test images, at least 0.
    accuracy, balanced_accuracy, macro_f1, macro_auc : in [0, 1]; the last three are means over
        diagnoses.
    expected_calibration_error, brier, log_loss : errors of the probabilities, in [0, 1], in [0, 2]
        and in nats in [0, 36.1]; 0 is best.
    """

    site: str
    n: int
    accuracy: float
    balanced_accuracy: float
    macro_f1: float
    macro_auc: float
    expected_calibration_error: float
    brier: float
    log_loss: float


@dataclass(frozen=True)
class ClassMetrics:
    """How a model does on one diagnosis against the others, on the test images of all sites.

    Attributes
    ----------
    diagnosis, name : its code and its full name.
    n : number of test images that have it, at least 0.
    sensitivity, specificity, precision, f1, auc : in [0, 1]; nan where not defined.
    """

    diagnosis: str
    name: str
    n: int
    sensitivity: float
    specificity: float
    precision: float
    f1: float
    auc: float


@dataclass(frozen=True)
class Round:
    """One question to the sites.

    Attributes
    ----------
    round : its number, from 1.
    question : its name.
    answered, failed : numbers of sites that answered, and that failed.
    seconds : seconds from the question to the last answer.
    bytes_down, bytes_up : bytes sent to all sites, and by them.
    """

    round: int
    question: str
    answered: int
    failed: int
    seconds: float
    bytes_down: int
    bytes_up: int


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes
    ----------
    folder : its folder, with configuration, metrics, rounds, model and card.
    method : how the sites trained.
    synthetic : whether the images were generated: then the figures say nothing about skin lesions.
    overall : metrics on the test images of all sites, from added counts.
    sites : metrics of each site alone; none where sums are secure.
    classes : metrics on the test images of all sites, by diagnosis.
    confusion : numbers of these images by [true, predicted] diagnosis, in the order of ``classes``.
    rounds : the questions to the sites, in order.
    learning : where the training reported its rounds, one entry each: "round", "stage", "seconds",
        bytes, "loss" and what else was measured; None for what was not.
    left_out : sites that do not take part in the model, with the reason.
    training : how the training went, by names that depend on the method.
    """

    folder: Path
    method: str
    synthetic: bool
    overall: SiteMetrics
    sites: tuple[SiteMetrics, ...]
    classes: tuple[ClassMetrics, ...]
    confusion: tuple[tuple[int, ...], ...]
    rounds: tuple[Round, ...]
    learning: tuple[Mapping[str, Any], ...]
    left_out: Mapping[str, str]
    training: Mapping[str, Any]

    @classmethod
    def read(cls, path: Path | str) -> Self:
        """Read a run from its folder, or from the folder that was given for its results.

        Raises
        ------
        DataError
            If there is no finished run.
        """
        folder = model_file(Path(path)).parent
        try:
            config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
            metrics = read_metrics(folder)
            overall, data = metrics["overall"], metrics["data"]
            confusion = tuple(map(tuple, overall["confusion"]))
            return cls(
                folder=folder,
                method=config["method"],
                synthetic=data["synthetic"],
                overall=_site("all sites", overall),
                sites=tuple(_site(name, values) for name, values in metrics["sites"].items()),
                classes=_classes(_task(config), overall["per_class"], confusion),
                confusion=confusion,
                rounds=tuple(map(_round, _lines(folder / ROUNDS_FILE))),
                learning=_lines(folder / TRAINING_FILE),
                left_out=data["left_out"],
                training=metrics["training"],
            )
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise DataError(
                f"{folder} is no folder of a run, or was changed ({error}); train it again"
            ) from error


def model_file(path: Path) -> Path:
    """Return the model of a run's folder, or of the one given for results; or ``path`` itself.

    Raises
    ------
    DataError
        If there is none.
    """
    # Not a pipe, for which a reader waits.
    for file in (path, path / MODEL_FILE, path / RUN / MODEL_FILE):
        if file.is_file():
            return file
    refuse_statistics(path)
    raise DataError(f"{path} holds no finished run; name a run's folder or its model file")


def refuse_statistics(path: Path) -> None:
    """Refuse a run's folder, or the one given for its results, that holds no model by its method.

    Raises
    ------
    DataError
        If it is one.
    """
    if any((folder / STATISTICS_FILE).is_file() for folder in (path, path / RUN)):
        raise DataError(
            f"{path} holds statistics, and no model: its method trains none; name another run"
        )


def _lines(file: Path) -> tuple[Mapping[str, Any], ...]:
    """Return what the lines of a file say, which not every method writes."""
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    return tuple(json.loads(line) for line in text.splitlines())


def _site(name: str, values: Mapping[str, Any]) -> SiteMetrics:
    kept = (field.name for field in fields(SiteMetrics) if field.name not in ("site", "n"))
    return SiteMetrics(name, values["n"], **{key: number(values[key]) for key in kept})


def _task(config: Mapping[str, Any]) -> Task:
    """Return the diagnoses of a run from its configuration, of which an older one says none."""
    settings = (
        tuple(config.get(key, ())) for key in ("diagnoses", "malignant", "mapping", "names")
    )
    return task_of(*settings)


def _classes(
    task: Task, values: Mapping[str, Mapping[str, Any]], confusion: tuple[tuple[int, ...], ...]
) -> tuple[ClassMetrics, ...]:
    return tuple(
        ClassMetrics(code, task.name(code), sum(row), **{k: number(v) for k, v in each.items()})
        for (code, each), row in zip(values.items(), confusion, strict=True)
    )


def _round(line: Mapping[str, Any]) -> Round:
    counts = {"answered": len(line["answered"]), "failed": len(line["faults"])}
    return Round(**{field.name: {**line, **counts}[field.name] for field in fields(Round)})
