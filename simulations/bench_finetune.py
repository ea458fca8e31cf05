"""What the stages of fine-tuning cost, and federation beside one site that holds everything."""

import json
import tempfile
from pathlib import Path
from typing import Literal

import numpy as np

from common.config import RunConfig
from server.progress import TRAINING_FILE
from simulations.bench_runtime import Measurement
from simulations.experiment import POOLED, make_sites, simulate, with_splits

_IMAGES = 1500
_SITES = 4
_EPOCHS = 0.25
_ROUNDS = 4


def bench_finetune(data: Path) -> list[Measurement]:
    """Time rounds of each stage, at one site and at several that hold the same images.

    The rounds of both runs see the same number of images, in steps of the same size.
    """
    with tempfile.TemporaryDirectory() as folder:
        pooled = _seconds(data, Path(folder), POOLED)
        federated = _seconds(data, Path(folder), "dirichlet")
    head, blocks, everything = RunConfig(method="finetune").stages
    return [
        Measurement(
            f"round of stage '{head}' over one of '{everything}'",
            pooled[head] / pooled[everything],
            "",
        ),
        Measurement(
            f"round of stage '{blocks}' over one of '{everything}'",
            pooled[blocks] / pooled[everything],
            "",
        ),
        Measurement(
            f"{_SITES} Dirichlet sites over one site, stage '{everything}'",
            federated[everything] / pooled[everything],
            "",
            "at most 1.1",
        ),
    ]


def _seconds(data: Path, folder: Path, scheme: Literal["pooled", "dirichlet"]) -> dict[str, float]:
    """Return the least seconds of a round of each stage."""
    config = RunConfig(
        method="finetune",
        rounds=(_ROUNDS,),
        local_epochs=(_EPOCHS,),
        validate_every=_ROUNDS,
        predictions=1,
        cache=folder / "cache",
        sites=folder / scheme,
        out=folder / f"run-{scheme}",
    )
    dataset = with_splits(data, config)
    chosen = np.random.default_rng(0).permutation(len(dataset))[:_IMAGES]
    make_sites(dataset.select(np.sort(chosen)), folder / scheme, scheme, _SITES, 1.0, config.seed)
    simulate(config)
    lines = (folder / f"run-{scheme}" / TRAINING_FILE).read_text().splitlines()
    rounds = [json.loads(line) for line in lines]
    return {s: min(r["seconds"] for r in rounds if r["stage"] == s) for s in config.stages}
