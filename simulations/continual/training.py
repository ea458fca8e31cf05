"""Trainings of a scenario, step by step: from nothing, or on from the step before."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from common.config.run import RunConfig
from common.config.task_settings import settings_for
from common.data.dataset import Dataset
from common.methods import METHODS
from server.run.folder import RUN
from simulations.continual.scenarios import Scenario
from simulations.data.partition import check_sites, partition, write_sites
from simulations.runtimes.experiment import simulate

JOINT = "joint"
"""The way that trains from nothing at each step: no other can be expected to do better."""

_PACE = {"stages", "rounds", "lr", "local_epochs"}
"""Settings of a training from nothing alone; one that goes on has its own."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Way:
    """How a federation learns what arrives.

    Attributes
    ----------
    words : for a reader.
    goes_on : whether it starts from the step before; if not, from nothing.
    new_only : whether only what arrives is trained on.
    joins_alone : whether a site that joins is trained on without those that were there.
    settings : that differ from those of the run.
    """

    words: str
    goes_on: bool = True
    new_only: bool = False
    joins_alone: bool = False
    settings: dict[str, object] = field(default_factory=dict)


_JOINT = Way("trained from nothing on all that has arrived", goes_on=False)
_OF_NETWORKS = {
    JOINT: _JOINT,
    "plain": Way("trained on with what is new alone", new_only=True),
    "distillation": Way(
        "the same, and answers stay those of the step before",
        new_only=True,
        settings={"distillation": 1.0},
    ),
    "replay": Way("trained on with all that has arrived"),
    "both": Way("replay with distillation", settings={"distillation": 1.0}),
}
_OF_SUMS = {
    JOINT: _JOINT,
    "added": Way("what is new is added to the sums of the step before", joins_alone=True),
}
_OF_ROUNDS = {JOINT: _JOINT, "warm": Way("all sites again, with the C of the step before")}


def ways_of(config: RunConfig) -> dict[str, Way]:
    """Return the ways that a run's method offers, by name."""
    if METHODS[config.method].trains_network:
        return _OF_NETWORKS
    return _OF_ROUNDS if config.head == "svm" else _OF_SUMS


@dataclass(frozen=True)
class Step:
    """A finished training.

    Attributes
    ----------
    way : name of the way.
    number : of the step, from 0.
    run : folder of the run.
    """

    way: str
    number: int
    run: Path


def train_all(
    scenario: Scenario,
    name: str,
    config: RunConfig,
    update: Mapping[str, object],
    out: Path,
    ways: Mapping[str, Way],
) -> Iterator[Step]:
    """Train every step in every way; what is finished already is not trained again.

    Parameters
    ----------
    name : of the scenario: where sites join, those that were there need not take part in sums.
    config : of the trainings from nothing.
    update : settings of those that go on, beside what is not of the pace in ``config``.
    out : folder for sites and runs.
    ways : the joint one, whose first step is that of all, and others.
    """
    first = None
    for way_name, way in ways.items():
        parent = first
        for number in range(len(scenario.names)):
            if number == 0 and first is not None:
                yield Step(way_name, 0, first)
                continue
            _log.info("%s, step %d of %d", way_name, number + 1, len(scenario.names))
            new_only = way.new_only or (way.joins_alone and name == "sites")
            sites = _write(scenario, number, new_only and number > 0, out / "sites")
            run = out / "runs" / f"{way_name}-{number}" / RUN
            run.parent.mkdir(parents=True, exist_ok=True)
            goes_on = way.goes_on and number > 0
            values = config.model_dump(exclude_unset=True) | settings_for(scenario.tasks[number])
            if goes_on:
                kept = {key: value for key, value in values.items() if key not in _PACE}
                values = {**kept, **way.settings, **update, "parent": parent}
            simulate(RunConfig.read({**values, "sites": sites.resolve(), "out": run}))
            parent = run
            first = first or run
            yield Step(way_name, number, run)


def _write(scenario: Scenario, number: int, new_only: bool, out: Path) -> Path:
    """Write the sites of a step, with all that has arrived or with what is new."""
    arrived = scenario.step == number if new_only else scenario.step <= number
    dataset: Dataset = scenario.dataset.select(np.flatnonzero(arrived))
    parts = partition(dataset, "natural", None, 1.0, 0)
    folder = out / f"{number}-{'new' if new_only else 'all'}"
    if folder.exists():
        check_sites(dataset, parts, folder)
    else:
        write_sites(dataset, parts, folder, link=True)
    return folder
