"""What the stages of fine-tuning cost, and federation beside one site that holds everything."""

import itertools
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from common.config.run import RunConfig
from common.data.dataset import Dataset
from server.run.progress import TRAINING_FILE
from simulations.bench.measurement import Measurement
from simulations.runtimes.experiment import POOLED, make_sites, simulate, with_splits

_IMAGES = 1500
_EPOCHS = 0.35
"""Makes rounds of as many steps as HAM10000 has by default, about six."""

_ROUNDS = 2
_REPEATS = 3

_Scheme = Literal["pooled", "natural", "dirichlet"]


def bench_finetune(data: Path) -> list[Measurement]:
    """Time rounds of each stage, at one site and at several that hold the same images.

    The rounds of all runs see the same number of images, in steps of the same size. Runs at one
    site and at several take turns, and the fastest round of each kind counts, since the machine's
    own speed may change meanwhile.
    """
    config = RunConfig(
        method="finetune",
        rounds=(_ROUNDS,),
        local_epochs=(_EPOCHS,),
        validate_every=_ROUNDS,
        predictions=1,
    )
    head, blocks, everything = config.stages
    dataset = with_splits(data, config)
    chosen = np.random.default_rng(0).permutation(len(dataset))[:_IMAGES]
    dataset = dataset.select(np.sort(chosen))
    spread: _Scheme = "natural" if dataset.sources.any() else "dirichlet"
    schemes: tuple[_Scheme, ...] = (POOLED, spread)
    pooled, federated = _fastest(dataset, config, schemes)
    over_all = f"over one of '{everything}'"
    sites = f"{spread} sites over one site, stage '{everything}'"
    return [
        Measurement(f"round of stage '{head}' {over_all}", pooled[head] / pooled[everything], ""),
        Measurement(
            f"round of stage '{blocks}' {over_all}", pooled[blocks] / pooled[everything], ""
        ),
        Measurement(sites, federated[everything] / pooled[everything], "", "at most 1.1"),
    ]


def _fastest(
    dataset: Dataset, config: RunConfig, schemes: Sequence[_Scheme]
) -> list[dict[str, float]]:
    """Return for each scheme the least seconds of a round of each stage, over all its runs."""
    by_scheme: dict[_Scheme, list[dict[str, float]]] = {scheme: [] for scheme in schemes}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for scheme in schemes:
            sites = 4 if scheme == "dirichlet" else None
            make_sites(dataset, folder / scheme, scheme, sites, 1.0, config.seed)
        for number, scheme in itertools.product(range(_REPEATS), schemes):
            out = folder / f"run-{scheme}-{number}"
            places = {"sites": folder / scheme, "out": out, "cache": folder / "cache"}
            by_scheme[scheme].append(fewest_seconds(config.model_copy(update=places), out))
    return [{s: min(run[s] for run in runs) for s in config.stages} for runs in by_scheme.values()]


def fewest_seconds(config: RunConfig, out: Path) -> dict[str, float]:
    """Return the least seconds of a round of each stage of a run into ``out``."""
    simulate(config)
    rounds = [json.loads(line) for line in (out / TRAINING_FILE).read_text().splitlines()]
    return {s: min(r["seconds"] for r in rounds if r["stage"] == s) for s in config.stages}
