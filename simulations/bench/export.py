"""What an exported file costs: size, time a picture at one thread and two, memory; beside PyTorch.

``python -m simulations.bench.export RUN DIR`` prints it for a run, on pictures of DIR. From a JPEG
to probabilities, each way in processes of its own, in turns; the fastest turn counts.
"""

import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from common.export import Form
from simulations.bench.measurement import Measurement

PICTURES = 40
"""Pictures in a turn; the median of their times is the turn's."""

_TURNS = 3
_THREADS = (1, 2)
_FORMS: Mapping[Form, str] = {"onnx": "ONNX", "onnx-int8": "ONNX, 8 bits"}
_TORCH = "PyTorch"

Ask = Callable[[bytes], object]


class _Cost(NamedTuple):
    """Of one picture in milliseconds, and the largest memory of the process in MB."""

    milliseconds: float
    memory: float


def bench_export(run: Path, data: Path) -> Iterator[Measurement]:
    """Yield the costs of a run's model on pictures in ``data``, exported and by PyTorch."""
    from common.data.dataset import Dataset

    dataset = Dataset.open(data)
    chosen = dataset.images[:: max(1, len(dataset) // PICTURES)][:PICTURES]
    pictures = [dataset.read(image.image_id) for image in chosen]
    with tempfile.TemporaryDirectory() as folder:
        files = {_TORCH: run, **dict(_exported(run, data, Path(folder)))}
        for name, file in files.items():
            if name != _TORCH:
                yield Measurement(f"{name}, file", file.stat().st_size / 1e6, "MB")
        for threads in _THREADS:
            yield from _figures(_costs(files, pictures, threads), threads)


def bench_small_exports(data: Path) -> Iterator[Measurement]:
    """Yield the costs on pictures in ``data`` of small runs, which are those of long ones."""
    from simulations.bench.predict import SETTINGS, small_run

    with tempfile.TemporaryDirectory() as folder:
        for name, settings in SETTINGS.items():
            for figure in bench_export(small_run(Path(folder) / name, settings), data):
                yield replace(figure, what=f"export, {name}, {figure.what}")


def _exported(run: Path, data: Path, folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield the files of both formats; whether they pass is not asked here."""
    from common.models.file import load_model
    from server.run.folder import model_file
    from simulations.evaluation.exported import content_of

    for form, name in _FORMS.items():
        file = folder / f"{form}.onnx"
        file.write_bytes(content_of(load_model(model_file(run)), form, data))
        yield name, file


def _costs(
    files: Mapping[str, Path], pictures: Sequence[bytes], threads: int
) -> dict[str, list[_Cost]]:
    """Return what each way costs in each turn."""
    costs: dict[str, list[_Cost]] = {name: [] for name in files}
    for _ in range(_TURNS):
        for name, file in files.items():
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                costs[name].append(pool.apply(_cost, (name, file, pictures, threads)))
    return costs


def _figures(costs: Mapping[str, Sequence[_Cost]], threads: int) -> Iterator[Measurement]:
    for name, turns in costs.items():
        what = f"{name}, {threads} thread{'s' * (threads > 1)}"
        yield Measurement(f"{what}, a picture", min(t.milliseconds for t in turns), "ms")
        yield Measurement(f"{what}, memory", max(t.memory for t in turns), "MB")


def _cost(name: str, file: Path, pictures: Sequence[bytes], threads: int) -> _Cost:
    ask = _by_torch(file, threads) if name == _TORCH else _by_onnx(file, threads)
    ask(pictures[0])
    seconds = []
    for picture in pictures:
        start = time.perf_counter()
        ask(picture)
        seconds.append(time.perf_counter() - start)
    return _Cost(1000 * sorted(seconds)[len(seconds) // 2], _largest_memory())


def _by_onnx(file: Path, threads: int) -> Ask:
    """Answer as docs/export.md does: by ONNX Runtime, NumPy and Pillow alone."""
    import io

    import numpy as np
    import onnxruntime
    from PIL import Image as Pillow

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    providers = ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(str(file), options, providers=providers)

    def ask(picture: bytes) -> object:
        pixels = np.asarray(Pillow.open(io.BytesIO(picture)).convert("RGB"))
        return session.run(None, {"pixels": pixels})

    return ask


def _by_torch(run: Path, threads: int) -> Ask:
    import torch

    from common.models.file import load_model
    from common.networks.spatial_maps import map_network
    from server.run.folder import model_file

    torch.set_num_threads(threads)
    model = load_model(model_file(run))
    network = map_network(model.config.feature_spec, (), model.trained)
    return lambda picture: model.judge(network.maps(picture))


def _largest_memory() -> float:
    """Return the most memory that this process held, in MB; Linux only."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    kilobytes = next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]
    return int(kilobytes) / 1000


if __name__ == "__main__":
    for figure in bench_export(*map(Path, sys.argv[1:3])):
        print(f"{figure.what:40} {figure.value:10.4g} {figure.unit}")
