"""A GPU beside the CPU: how far the same steps come apart, how fast they are, in what memory.

``python -m simulations.bench.gpu DIR``, on a machine with a GPU.
"""

import itertools
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import numpy as np
import torch

from common.arrays import Floats32
from common.config.run import RunConfig
from common.data.dataset import Dataset
from common.errors import ConfigError
from common.features.extract import content_keys
from common.features.inference_engine import one_thread_per_core
from common.finetune.imbalance import Balance
from common.finetune.local_steps import Loaded, LocalSteps
from common.finetune.plan import Item, Stream
from common.finetune.targets import Targets
from common.networks.activations import Views
from common.networks.inference import prediction_features
from common.networks.network import ALL, DEVICE, Network, open_stage, run_network
from simulations.bench.measurement import Measurement, peak_memory, timed

_IMAGES, _STEPS, _WARM = 512, 20, 5
_RATE = 5e-4
_KINDS = ("cpu", "single", "mixed")
"""On the CPU, on the GPU as precise, and on the GPU as it is used."""


@dataclass(frozen=True)
class _Measured:
    """Steps and a prediction on one device.

    Attributes
    ----------
    seconds : of a step.
    views : read and seen in a second of prediction.
    memory : peak, in GiB, of the GPU's or else the process's.
    change : (n,) how far steps of SGD moved the weights; those of AdamW hang on the signs of
        gradients that are almost zero.
    features : (n, n_features) of the images, before any step.
    """

    seconds: float
    views: float
    memory: float
    change: Floats32
    features: Floats32


def bench_gpu(data: Path) -> list[Measurement]:
    """Take the same steps on a CPU and on a GPU, each in a process of its own, and compare.

    Raises
    ------
    ConfigError
        If PyTorch sees no GPU.
    """
    if DEVICE == "cpu":
        raise ConfigError("PyTorch sees no GPU; run this where torch.cuda.is_available()")
    with TemporaryDirectory() as folder:
        cpu, single, mixed = (_in_process(data, kind, Path(folder)) for kind in _KINDS)
    rows = []
    for name, each in (("single precision", single), ("mixed precision", mixed)):
        apart = (_apart(each.features, cpu.features), _apart(each.change, cpu.change))
        rows += [
            Measurement(f"GPU in {name}, features, relative distance to the CPU's", apart[0], ""),
            Measurement(f"GPU in {name}, change by {_STEPS} steps, the same", apart[1], ""),
            Measurement(
                f"GPU in {name}, seconds of a step over the CPU's", each.seconds / cpu.seconds, ""
            ),
            Measurement(
                f"GPU in {name}, views of prediction over the CPU's", each.views / cpu.views, ""
            ),
            Measurement(f"GPU in {name}, peak memory of the GPU", each.memory, "GiB"),
        ]
    return [
        *rows,
        Measurement("CPU, a step of 64 images", cpu.seconds, "s"),
        Measurement("GPU in mixed precision, a step of 64 images", mixed.seconds, "s"),
        Measurement("CPU, peak memory of the process", cpu.memory, "GiB"),
    ]


def _apart(one: Floats32, other: Floats32) -> float:
    return float(np.linalg.norm(one - other) / np.linalg.norm(other))


def _in_process(data: Path, kind: str, folder: Path) -> _Measured:
    """Measure in a new process, which sees the GPU or does not."""
    out = folder / f"{kind}.npz"
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if kind == "cpu" else {}
    command = [sys.executable, "-m", __spec__.name, str(data), kind, str(out)]
    subprocess.run(command, env={**os.environ, **hidden}, check=True)
    with np.load(out) as arrays:
        numbers = {name: float(arrays[name]) for name in ("seconds", "views", "memory")}
        return _Measured(**numbers, change=arrays["change"], features=arrays["features"])


def _measure(data: Path, kind: str) -> _Measured:
    config = RunConfig.read({"method": "finetune", "quality": "best"})
    dataset = Dataset.open(data)
    chosen = np.random.default_rng(0).permutation(len(dataset))[:_IMAGES]
    dataset = dataset.select(np.sort(chosen))
    network = run_network(config)
    with ExitStack() as stack:
        if kind == "single":
            for module in ("common.finetune.local_steps", "common.networks.inference"):
                stack.enter_context(patch(f"{module}.autocast", nullcontext))
        pool = stack.enter_context(one_thread_per_core())
        features, predicting = timed(lambda: _features(network, dataset, config, pool))
        seconds, _ = _steps(network, dataset, config, pool)
        plain = config.model_copy(update={"optimizer": "sgd"})
        _, change = _steps(network, dataset, plain, pool)
    memory = torch.cuda.max_memory_allocated() / 2**30 if DEVICE == "cuda" else peak_memory()
    views = len(dataset) * config.predictions / predicting
    return _Measured(seconds, views, memory, change, features)


def _features(
    network: Network, dataset: Dataset, config: RunConfig, pool: ThreadPoolExecutor
) -> Floats32:
    files = [dataset.read(image.image_id) for image in dataset.images]
    return prediction_features(network.backbone, files, config.feature_spec, pool)


def _steps(
    network: Network, dataset: Dataset, config: RunConfig, pool: ThreadPoolExecutor
) -> tuple[float, Floats32]:
    """Take steps with all layers open; return the seconds of one, and the change (n,)."""
    network.load({})
    counts = np.bincount(dataset.labels, minlength=config.task.n_classes)
    balance = Balance.from_counts(config, counts)
    stream = Stream(dataset.labels, balance.draws, config.seed, "bench")
    views = Views(dataset, content_keys(dataset), config.feature_spec)
    even, about = np.ones(network.n_features, np.float32), np.zeros(0, np.float32)

    def load(item: Item) -> Loaded:
        return views.load(item), even, about

    stage = open_stage(network, ALL)
    targets = Targets(dataset.labels)
    steps = LocalSteps(network, stage, config, balance, targets, load, pool, {}, seed=stream.seed)
    bounds = np.arange(_STEPS + 2) * config.batch / len(dataset)
    batches = [stream.between(a, b) for a, b in itertools.pairwise(bounds)]
    began = 0.0
    for number in range(_STEPS):
        if number == _WARM:
            began = time.perf_counter()
        steps.step(batches[number], _RATE, batches[number + 1])
    # Reading the change waits for the GPU.
    change = np.concatenate([each.ravel() for each in steps.change().values()])
    return (time.perf_counter() - began) / (_STEPS - _WARM), change


def main(data: Path, kind: str = "", out: str = "") -> None:
    """Print the figures, or, as the process of one kind, write what it measured."""
    if kind:
        np.savez(out, **vars(_measure(data, kind)))
        return
    for each in bench_gpu(data):
        print(f"{each.what}: {each.value:.3g} {each.unit}".rstrip())


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
