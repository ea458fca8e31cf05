"""Memory and seconds a round as they grow with the number of sites.

``python -m simulations.bench.scale OUT`` writes ``scale.json`` and ``scale.svg`` into OUT.

Sites are folders with a table and links to a few of the same 120 generated images: what a site
itself has to compute is small, so what is measured is what the program spends on there being sites.
"""

import json
import multiprocessing
import os
import re
import statistics
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Self

import numpy as np
import typer
from flwr.app import Context, Message

import client.app
from client.egress.questions import JOIN
from common.command_line import run as run_command
from common.config.run import RunConfig
from common.data.dataset import Dataset
from common.errors import FedDermError
from common.storage.whole_files import write_atomically
from common.wire.messages import unpack_values
from simulations.bench.measurement import peak_memory, timed
from simulations.data.partition import write_site
from simulations.data.synthetic import write_synthetic
from simulations.runtimes.experiment import rounds, simulate, with_splits
from simulations.runtimes.flower_run import flwr_run, groups_with
from simulations.study.report.charts.svg import as_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ROOT = Path(__file__).parents[2]
_IMAGES, _OF_SPLIT = 120, 4
_WEIGHTS = "weights.safetensors"
_SAMPLE_SECONDS = 2.0
_BACKBONE = "test_resnet"
_SMALL = {"backbone": _BACKBONE, "size": 32, "predictions": 1, "folds": 2}
_SVM = RunConfig(views=1, levels=0, c=(1e-6,), min_active=1, judged="first")
_FINETUNE = RunConfig(method="finetune", stages=("all",), rounds=(3,), local_epochs=(1.0,))
SETTINGS = {each.method: each.model_copy(update=_SMALL) for each in (_SVM, _FINETUNE)}
"""One fit of an SVM, and three rounds of fine-tuning all layers, of a network with random weights
that is a hundredth of the default one."""

_TRAINING = dict(zip(SETTINGS, ("hinge", "train"), strict=True))
"""The question of a round of training."""

app = typer.Typer(add_completion=False)


@dataclass(frozen=True)
class Growth:
    """What a run over so many sites took.

    Attributes
    ----------
    seconds : of the whole run; in process seconds of CPU, which other work on the machine hardly
        changes, under ``flwr run`` by the clock.
    joining : of these until the coordinator knew the sites.
    round : the median of those of a round of training.
    memory : peak memory of the process, or of all processes together, in GiB.
    """

    method: str
    sites: int
    seconds: float
    joining: float
    round: float
    memory: float


def write_many_sites(dataset: Dataset, out: Path, sites: int) -> None:
    """Write site folders with links to some images of each split, the same again and again."""
    rng = np.random.default_rng(0)
    parts = [np.flatnonzero(dataset.splits == split) for split in np.unique(dataset.splits)]
    for number in range(sites):
        chosen = np.sort(np.concatenate([rng.choice(part, _OF_SPLIT, False) for part in parts]))
        write_site(dataset.select(chosen), out / f"site_{number:05}", link=True)


def growth(
    counts: Sequence[int], methods: Collection[str], flower: Collection[int]
) -> Iterator[Growth]:
    """Yield what runs took over each number of sites, each in a process of its own.

    Parameters
    ----------
    flower : numbers of sites over which the first method runs under ``flwr run``, too.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_synthetic(folder / "data", _IMAGES)
        _write_network(folder / _WEIGHTS)
        for sites in counts:
            write_many_sites(_with_splits(folder), folder / f"sites-{sites}", sites)
            for method in methods:
                with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as one:
                    yield one.submit(_in_process, folder, method, sites).result()
            if sites in flower:
                yield _under_flower(folder, next(iter(methods)), sites)


def _with_splits(folder: Path) -> Dataset:
    return with_splits(folder / "data", SETTINGS["svm"].model_copy(update=_places(folder, "", 0)))


def _places(folder: Path, method: str, sites: int) -> dict[str, Path]:
    out = folder / f"run-{method}-{sites}"
    cache, weights = folder / "cache", folder / _WEIGHTS
    return {"sites": folder / f"sites-{sites}", "out": out, "cache": cache, "weights": weights}


def _write_network(file: Path) -> None:
    """Save random weights of a network whose BatchNorms have seen images."""
    import torch
    from safetensors.torch import save_file

    import common.networks.network  # noqa: F401  (makes timm importable)

    import timm  # isort: skip

    torch.manual_seed(0)
    network = timm.create_model(_BACKBONE).train()
    with torch.no_grad():
        for _ in range(10):
            network(torch.randn(8, 3, 64, 64))
    save_file(network.state_dict(), file)


def _in_process(folder: Path, method: str, sites: int) -> Growth:
    config = SETTINGS[method].model_copy(update=_places(folder, method, sites))
    clock = _Clock()
    simulate(config, clock)
    whole = time.process_time()
    by_question = clock.seconds(whole)
    [joining], training = by_question[JOIN], by_question[_TRAINING[method]]
    return Growth(method, sites, whole, joining, statistics.median(training), peak_memory())


def _under_flower(folder: Path, method: str, sites: int) -> Growth:
    """Measure a run of several processes by the clock, and the memory of all of them."""
    home, places = folder / "home", _places(folder, method, sites)
    config = SETTINGS[method].model_copy(
        update={**places, "out": folder / "run-flower", "expected": sites, "quorum": sites}
    )
    with _Memory(f"FLWR_HOME={home}") as memory:
        run, seconds = timed(lambda: flwr_run(_ROOT, config.flat(), sites, home))
    if run.returncode:
        raise FedDermError(f"flwr run failed:\n{run.stdout[-2000:]}")
    assert config.out is not None
    log = rounds(config.out)
    training = [entry["seconds"] for entry in log if entry["question"] == _TRAINING[method]]
    middle = statistics.median(training)
    return Growth(f"{method}, flwr run", sites, seconds, log[0]["seconds"], middle, memory.peak)


class _Memory:
    """The largest memory, in GiB, that processes had together which have a variable set.

    What they share is counted once.
    """

    def __init__(self, variable: str) -> None:
        self._variable, self._ended = variable, threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.peak = 0.0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(_SAMPLE_SECONDS):
            groups = groups_with(self._variable)
            self.peak = max(self.peak, sum(map(_proportional, _members(groups))) / 2**20)


def _members(groups: Collection[int]) -> Iterator[int]:
    """Yield the processes that are in these process groups."""
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            if os.getpgid(int(folder.name)) in groups:
                yield int(folder.name)


def _proportional(process: int) -> int:
    """Return a process's memory in kB, its share of what others map too."""
    with suppress(OSError):  # it has ended
        text = Path(f"/proc/{process}/smaps_rollup").read_text()
        if found := re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE):
            return int(found[1])
    return 0


class _Clock:
    """Answers for the sites, and notes when each round begins."""

    def __init__(self) -> None:
        self._group = ""
        self._begun: list[tuple[str, float]] = []

    def __call__(self, message: Message, context: Context) -> Message:
        if message.metadata.group_id != self._group:
            self._group = message.metadata.group_id
            question = str(unpack_values(message.content)["question"])
            self._begun.append((question, time.process_time()))
        return client.app.app(message, context)

    def seconds(self, end: float) -> dict[str, list[float]]:
        """Return the seconds from the beginning of each round to that of the next, by question."""
        found = defaultdict(list)
        for (question, begun), (_, ended) in pairwise([*self._begun, ("", end)]):
            found[question].append(ended - begun)
        return found


@app.command()
def main(
    out: Annotated[Path, typer.Argument(help="Folder for the figures and the chart.")],
    sites: Annotated[str, typer.Option(help="Numbers of sites.")] = "10,100,1000",
    methods: Annotated[str, typer.Option(help="svm, finetune or both.")] = "svm,finetune",
    flower: Annotated[str, typer.Option(help="Of the numbers, those under flwr run too.")] = "",
) -> None:
    """Print a line for each run as it ends; add them to OUT/scale.json and draw OUT/scale.svg."""
    out.mkdir(parents=True, exist_ok=True)
    file = out / "scale.json"
    found = [Growth(**line) for line in json.loads(file.read_text())] if file.exists() else []
    counts = [int(number) for number in sites.split(",")]
    under = [int(number) for number in flower.split(",") if number]
    for each in growth(counts, methods.split(","), under):
        typer.echo(
            f"{each.method:15} {each.sites:6,} sites: {each.seconds:8.1f} s, joining "
            f"{each.joining:7.2f} s, a round {each.round:7.3f} s, {each.memory:5.2f} GiB"
        )
        found = [old for old in found if (old.method, old.sites) != (each.method, each.sites)]
        found.append(each)
        write_atomically(file, json.dumps([asdict(line) for line in found], indent=1).encode())
    write_atomically(out / "scale.svg", as_file(lambda: _chart(found)))


def _chart(found: Sequence[Growth]) -> "Figure":
    """Draw seconds a round and memory over the number of sites, a line for each method."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 3.4), layout="constrained")
    panels = figure.subplots(1, 2)
    titles = {"round": "seconds a round", "memory": "peak memory, GiB"}
    for axes, (name, title) in zip(panels, titles.items(), strict=True):
        for number, method in enumerate(dict.fromkeys(each.method for each in found)):
            of_method = sorted((g for g in found if g.method == method), key=lambda g: g.sites)
            values = [getattr(each, name) for each in of_method]
            places = [each.sites for each in of_method]
            axes.loglog(places, values, marker="osD^"[number], label=method)
        axes.set_title(title)
        axes.set_xlabel("sites")
        axes.grid(linewidth=0.4)
    panels[1].legend(frameon=False)
    return figure


if __name__ == "__main__":
    run_command(app)
