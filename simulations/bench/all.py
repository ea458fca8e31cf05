"""All benchmarks: every ratio from one run, side by side; nothing here is a test."""

from collections.abc import Iterator
from pathlib import Path

from common.data.dataset import Dataset
from simulations.bench.egress_log import bench_egress_log
from simulations.bench.export import bench_small_exports
from simulations.bench.features import bench_features
from simulations.bench.finetune import bench_finetune
from simulations.bench.measurement import Measurement
from simulations.bench.message import bench_message
from simulations.bench.predict import bench_predict
from simulations.bench.private import bench_private
from simulations.bench.runtime import bench_runtime
from simulations.bench.secure import bench_secure
from simulations.bench.svm import bench_svm


def run(data: Path, c: float) -> Iterator[Measurement]:
    """Yield the figures of all methods on the images in ``data``, and of the runtimes."""
    yield from _features(Dataset.open(data))
    yield from bench_predict(data)
    yield from bench_small_exports(data)
    yield from bench_svm(data, c)
    yield from bench_message(data, c)
    yield from bench_egress_log()
    yield from bench_finetune(data)
    yield from bench_private()
    yield from bench_secure(data)
    yield from bench_runtime()


def _features(dataset: Dataset) -> Iterator[Measurement]:
    bench = bench_features(dataset, images=320)
    yield Measurement("features, ONNX Runtime", bench.engine, "views/s")
    yield Measurement("features, PyTorch eager in channels_last", bench.eager, "views/s")
    yield Measurement("features, ratio", bench.ratio, "", "at least 2")
    yield Measurement("features, largest relative difference", bench.difference, "", "below 1e-3")
