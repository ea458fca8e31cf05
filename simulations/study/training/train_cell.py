"""One cell in a process of its own.

``python -m simulations.study.training.train_cell FOLDER CORE...``

So its peak memory is its own, it uses its own cores alone, and its end leaves the other cells
alone.
"""

import json
import logging
import os
import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np
from flwr.app import Context, Message

import client.app
from common.arrays import Ints
from common.config.run import RunConfig
from common.data.dataset import Dataset
from common.data.duplicates import open_joined
from common.errors import DataError, FedDermError, described
from common.json_types import Json
from common.logs import log_lines
from common.models.file import load_model
from common.storage.verified import write_json
from common.storage.whole_files import owned
from common.text import printable
from common.wire.messages import unpack_values
from server.run.folder import MODEL_FILE, read_metrics
from simulations.data.partition import check_sites, write_sites
from simulations.runtimes.experiment import rounds, simulate
from simulations.study.cells import Arm, Cell, cut
from simulations.study.definition import Study
from simulations.study.judging.predictions import Predictions
from simulations.study.results import CellResult

JOB_FILE = "job.json"
RESULT_FILE = "result.json"
PREDICTIONS_FILE = "predictions.npz"


@dataclass
class Stopwatch:
    """The client app, with the seconds of every answer.

    Attributes
    ----------
    joining : seconds in which sites read their features, and computed those that were not kept.
    rounds : seconds of each site's answer, by its node, in each later round.
    """

    joining: float = 0.0
    rounds: list[dict[int, float]] = field(default_factory=list)
    _question: str = ""

    def __call__(self, message: Message, context: Context) -> Message:
        """Answer as the client app does."""
        started = time.perf_counter()
        reply = client.app.app(message, context)
        seconds = time.perf_counter() - started
        question = str(unpack_values(message.content)["question"])
        if question == "join":
            self.joining += seconds
            return reply
        if question != self._question or context.node_id in self.rounds[-1]:
            self._question = question
            self.rounds.append({})
        self.rounds[-1][context.node_id] = seconds
        return reply

    def split(self, wall: float, sites: int) -> dict[str, float]:
        """Return where the time went.

        Parameters
        ----------
        wall : seconds of the whole run, in which the sites answered one after the other.

        Returns
        -------
        ``wall``; ``reading`` of features, all sites together; and what a site would see that had
        a machine of its own, on average: ``training``, its answers, and ``waiting``, for the
        slowest site of each round and for the coordinator.
        """
        answers = sum(sum(answered.values()) for answered in self.rounds)
        slowest = sum(max(answered.values()) for answered in self.rounds)
        training = answers / sites
        coordinator = max(0.0, wall - answers - self.joining)
        waiting = slowest - training + coordinator
        return {
            "wall": wall,
            "reading": self.joining,
            "training": training,
            "waiting": waiting,
        }


def train(folder: Path, cores: int) -> None:
    """Train the cell that ``job.json`` in a folder describes, and keep what came of it.

    A cell that was interrupted goes on from the last round of its run; one that is finished stays
    as it is. Only the owner of the folder may call it.

    Parameters
    ----------
    cores : how many this process has to itself, for the record.

    Raises
    ------
    FedDermError
        If there is no model.
    """
    if (folder / RESULT_FILE).exists():
        return
    job = json.loads((folder / JOB_FILE).read_text(encoding="utf-8"))
    study, cell = Study.model_validate(job["study"]), Cell(Arm(*job["arm"]), job["fold"])
    dataset = open_joined(job["data"], Path(job["cache"]))
    parts = cut(study, dataset.for_task(study.task), cell)
    held = {site: rows for site, rows in parts.parts.items() if len(rows)}
    if not held:
        raise DataError(f"{cell.arm.site} has no training lesion beside this fold's test lesions")
    sites, run = folder / "sites", folder / "run"
    _make_sites(sites, parts.training, held)
    places = {"sites": sites.resolve(), "out": run, "cache": Path(job["cache"])}
    config = study.config(cell.arm.route).model_copy(update=places)
    watched = _simulate_watched(config, run, len(held))
    model = load_model(run / MODEL_FILE, config.weights)
    Predictions.of(model, parts.test, config.cache).save(folder / PREDICTIONS_FILE)
    empty = dict.fromkeys(parts.parts.keys() - held.keys(), "has no training lesion")
    result = _result(run, parts.training, len(held), empty, cores, *watched)
    shutil.rmtree(sites)
    write_json(folder / RESULT_FILE, cast("Mapping[str, Json]", result))


def _make_sites(folder: Path, training: Dataset, rows: Mapping[str, Ints]) -> None:
    """Write the sites' folders; those that an interrupted run left must be the same."""
    if folder.exists():
        check_sites(training, rows, folder)
    else:
        write_sites(training, rows, folder, link=True)


def _simulate_watched(
    config: RunConfig, run: Path, sites: int
) -> tuple[dict[str, float] | None, int | None]:
    """Train; return where the time went and the peak memory, None if the run was interrupted.

    Such a run was not measured to its end.
    """
    fresh, watch, started = not run.exists(), Stopwatch(), time.perf_counter()
    simulate(config, watch)
    seconds = watch.split(time.perf_counter() - started, sites)
    return (seconds, _peak_memory()) if fresh else (None, None)


def _peak_memory() -> int | None:
    """Return the most memory that this process had, in bytes; None where Linux does not tell.

    What ``getrusage`` says includes the process that started this one.
    """
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="utf-8").splitlines() if status.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), None)


def _result(
    run: Path,
    training: Dataset,
    sites: int,
    empty: Mapping[str, str],
    cores: int,
    seconds: dict[str, float] | None,
    peak_memory: int | None,
) -> CellResult:
    """Return what a report tells of a run.

    Parameters
    ----------
    empty : why sites were not part of it, by name.
    """
    metrics = read_metrics(run)
    log = rounds(run)
    return {
        "training": {"images": len(training), "lesions": len(np.unique(training.lesions))},
        "sites": sites,
        "cores": cores,
        "left_out": {**metrics["data"]["left_out"], **empty},
        "chosen": metrics["training"].get("chosen", {}),
        "fit_rounds": metrics["training"].get("rounds", 0),
        "rounds": len(log),
        "bytes_up": sum(entry["bytes_up"] for entry in log),
        "bytes_down": sum(entry["bytes_down"] for entry in log),
        "seconds": seconds,
        "peak_memory": peak_memory,
        "model_bytes": (run / MODEL_FILE).stat().st_size,
    }


def main(folder: str, *cores: str) -> None:
    """Train a cell on these cores; the reason of a failure is the last line it says.

    A cell whose study was killed may still be training: then its end is waited for.
    """
    if hasattr(os, "sched_setaffinity"):  # Linux only
        os.sched_setaffinity(0, {int(core) for core in cores})
    log_lines(logging.INFO, "%(levelname)s %(name)s: %(message)s")
    with owned(Path(folder), wait=True):
        try:
            train(Path(folder), len(cores))
        except (FedDermError, OSError) as error:
            # No interruption: a run that goes on would ask anew what a site has refused.
            for name in ("run", "sites"):
                shutil.rmtree(Path(folder) / name, ignore_errors=True)
            print(f"error: {printable(described(error))}", file=sys.stderr)
            sys.exit(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
