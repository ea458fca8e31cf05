"""Runs a study from its file to its figures, and continues an interrupted one."""

import json
import logging
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import cast

from common.data.dataset import Dataset
from common.data.duplicates import open_joined
from common.errors import ConfigError, DataError
from common.storage.verified import read_json, write_json
from common.storage.whole_files import make_folder, owned, write_atomically
from server.run.folder import MODEL_FILE
from simulations.data.agreed_task import agreed, for_task
from simulations.study.cells import Cell, arms, fingerprint, plan
from simulations.study.cost import RouteCost
from simulations.study.definition import POOLED, TASK, Study
from simulations.study.findings import FEDERATION, LABELS, ROUTES, About, Findings
from simulations.study.judging.judge import Judge, by_site
from simulations.study.judging.judged import JudgedArm
from simulations.study.judging.paired_tests import Comparison, compare_pairs
from simulations.study.judging.predictions import Predictions
from simulations.study.results import CellResult
from simulations.study.training.measure_cost import measure_route, warm_up
from simulations.study.training.schedule import failure, finished, run_cells
from simulations.study.training.train_cell import PREDICTIONS_FILE, RESULT_FILE

STATE_FILE = "study.json"
COST_FILE = "cost.json"
CELLS_FOLDER = "cells"

_PACKAGES = ("fedderm", "flwr", "numpy", "onnxruntime", "scikit-learn", "scipy", "torch")

_log = logging.getLogger(__name__)


def compare(data: Path, out: Path, study: Study, cache: Path, jobs: int) -> Findings:
    """Train what is not trained yet, and judge everything.

    A study that was stopped goes on when it is started again, with arms added to its file if need
    be; cells that failed are tried again.

    Parameters
    ----------
    out : folder of the study, made if needed.
    cache : folder of features, shared by all runs.
    jobs : cells side by side; 0 trains nothing and judges what is there.

    Raises
    ------
    ConfigError
        If the study is impossible with this data, or ``out`` holds another one.
    DataError
        If the data cannot be used, ``out`` holds anything else, or no cell has a model.
    BusyError
        If another process trains it.
    """
    dataset = open_joined(data, cache)
    study = study.model_copy(update=agreed(study, dataset.task))
    dataset = for_task(dataset, study.task)
    cells = plan(study, dataset)
    # What is there may be reported while it is trained.
    with owned(out) if jobs else nullcontext():
        return _compare(dataset, out, study, cache, jobs, cells)


def _compare(
    dataset: Dataset, out: Path, study: Study, cache: Path, jobs: int, cells: Sequence[Cell]
) -> Findings:
    about = _about(dataset)
    _begin(out, study, about)
    folders = {out / CELLS_FOLDER / cell.name: cell for cell in cells}
    if jobs:
        _warm_up(dataset, study, cache, folders)
        run_cells(study, dataset.folder, cache.expanduser(), folders, jobs)
    judged = list(_judged(study, dataset, folders))
    if not any(arm.resampled for arm in judged):
        reasons = [reason for arm in judged for reason in arm.failures.values()]
        raise DataError(f"no cell of {out} has a model: {reasons[0] if reasons else 'none ran'}")
    costs = _costs(dataset, study, cache, out, folders)
    results = [arm.result() for arm in judged]
    return Findings(study, about, results, compared(study, judged), costs)


def _about(dataset: Dataset) -> About:
    return {
        "data": str(dataset.folder),
        "images": len(dataset),
        "lesions": len(dataset.by_lesion.sizes),
        "synthetic": dataset.synthetic,
        "unknown_lesions": dataset.unknown_lesions,
        "fingerprint": fingerprint(dataset),
        "versions": {"python": platform.python_version(), **{p: version(p) for p in _PACKAGES}},
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}",
    }


def _begin(out: Path, study: Study, about: About) -> None:
    """Write what the study rests on, or check that the folder's cells rest on the same.

    Arms, routes, spreads and scales may be added; those that the folder knows are as they were.
    """
    default = {key for key in TASK if not getattr(study, key)}
    values = study.model_dump(mode="json", exclude={"arms", "scales", *default})
    named = {
        **{f"route {name}": route for name, route in values.pop("routes").items()},
        **{f"spread {name}": spread for name, spread in values.pop("spreads").items()},
    }
    data_and_code = {"fingerprint": about["fingerprint"], "versions": about["versions"]}
    rests_on = {**named, **values, **data_and_code}
    held, file = rests_on, out / STATE_FILE
    if file.exists():
        try:
            held = named | json.loads(file.read_text(encoding="utf-8"))
            changed = next((key for key in rests_on if held[key] != rests_on[key]), None)
        except (ValueError, LookupError, TypeError) as error:
            raise DataError(f"{file} cannot be read; name a new folder") from error
        if changed:
            raise ConfigError(
                f"{out} holds a study whose {changed} is {held[changed]!r}, not "
                f"{rests_on[changed]!r}; start it as it was or name a new folder"
            )
    else:
        make_folder(out, STATE_FILE)
    write_atomically(file, (json.dumps(held, indent=1) + "\n").encode())


def _warm_up(dataset: Dataset, study: Study, cache: Path, folders: Mapping[Path, Cell]) -> None:
    """Compute features once, before cells that run side by side would each begin to."""
    for route in dict.fromkeys(c.arm.route for f, c in folders.items() if not finished(f)):
        _log.info("%s: features of %d images", route, len(dataset))
        warm_up(dataset, study.config(route).model_copy(update={"cache": cache}))


def _judged(study: Study, dataset: Dataset, folders: Mapping[Path, Cell]) -> Iterator[JudgedArm]:
    judge = Judge(study.task, study.seed, study.resamples)
    for arm in arms(study, dataset):
        own = {cell.fold: folder for folder, cell in folders.items() if cell.arm == arm}
        done = {fold: folder for fold, folder in own.items() if finished(folder)}
        failures = {f: why for f, folder in own.items() if (why := failure(folder)) is not None}
        predictions = {fold: Predictions.load(f / PREDICTIONS_FILE) for fold, f in done.items()}
        joined = Predictions.join(list(predictions.values())) if predictions else None
        yield JudgedArm(
            arm,
            study.task,
            cells={fold: cast(CellResult, read_json(f / RESULT_FILE)) for fold, f in done.items()},
            predictions=predictions,
            resampled={fold: judge.measure(fold, p) for fold, p in predictions.items()},
            sites=dict(by_site(judge, joined)) if joined else {},
            failures=failures,
            missing=[fold for fold in own if fold not in done and fold not in failures],
        )


def compared(study: Study, judged: Sequence[JudgedArm]) -> list[Comparison]:
    """Compare arms with pooled data, with another route, and with all diagnoses in their data."""
    known = [arm for arm in judged if arm.resampled]
    pooled = {
        (r.arm.route, r.arm.scale): r for r in known if study.spreads[r.arm.spread].scheme == POOLED
    }
    federation = [
        (r, pooled[key])
        for r in known
        if (key := (r.arm.route, r.arm.scale)) in pooled and r is not pooled[key]
    ]
    routes = [
        (second, first)
        for i, first in enumerate(known)
        for second in known[i + 1 :]
        if first.arm[1:] == second.arm[1:]
    ]
    return [
        *compare_pairs(FEDERATION, federation, study.margin, study.seed),
        *compare_pairs(ROUTES, routes, study.margin, study.seed),
        *compare_pairs(LABELS, list(_with_labelled(study, known)), study.margin, study.seed),
    ]


def _with_labelled(
    study: Study, known: Sequence[JudgedArm]
) -> Iterator[tuple[JudgedArm, JudgedArm]]:
    """Pair arms with those over the same data with all diagnoses, of their route if it has one."""
    for one in known:
        spread = study.spreads[one.arm.spread]
        others = [
            other
            for other in known
            if spread.unlabelled
            and study.spreads[other.arm.spread] == spread.labelled
            and other.arm[2:] == one.arm[2:]
        ]
        own = [other for other in others if other.arm.route == one.arm.route]
        yield from ((one, other) for other in own or others)


def _costs(
    dataset: Dataset, study: Study, cache: Path, out: Path, folders: Mapping[Path, Cell]
) -> dict[str, RouteCost]:
    """Measure the routes that have a model, once; what was measured before is kept."""
    file = out / COST_FILE
    kept = read_json(file) if file.exists() else {}
    costs = {route: RouteCost.read(values) for route, values in kept.items()}
    for folder, cell in folders.items():
        if cell.arm.route not in costs and finished(folder):
            config = study.config(cell.arm.route).model_copy(update={"cache": cache})
            model = folder / "run" / MODEL_FILE
            costs[cell.arm.route] = measure_route(dataset, config, model)
    values = {route: asdict(cost) for route, cost in costs.items()}
    write_json(file, values)
    return costs
