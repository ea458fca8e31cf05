"""What the runtimes themselves cost: a model goes to each site and comes back untrained."""

import multiprocessing
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, Context, Message, RecordDict, UserConfig
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from common.errors import FedDermError
from simulations.bench.measurement import Measurement, peak_memory, timed
from simulations.runtimes.flower_run import flwr_run
from simulations.runtimes.in_process import run_in_process

MODEL_VALUES = 1_000_000  # 4 MB in single precision
POLL_SECONDS = 0.1

PYPROJECT = """
[project]
name = "bench-runtime"
version = "1.0.0"
description = "Sends a model to each site and back"
license = "Apache-2.0"

[tool.flwr.app]
publisher = "fedderm"

[tool.flwr.app.components]
serverapp = "simulations.bench.runtime:server_app"
clientapp = "simulations.bench.runtime:client_app"

[tool.flwr.app.config]
sites = 0
rounds = 0
message-type = ""
"""

client_app = ClientApp()
server_app = ServerApp()


def bench_runtime(sites: int = 100, rounds: int = 10) -> list[Measurement]:
    """Compare the runtimes at the same work, and measure 1,000 sites in one process.

    Parameters
    ----------
    sites : number of sites of the comparison.
    rounds : number of times the model goes to every site and back.
    """
    with tempfile.TemporaryDirectory() as folder:
        flower = _time_flower(Path(folder), sites, rounds)
    in_process = _time_in_process(sites, rounds)
    work = f"{sites} sites x {rounds} rounds x 4 MB"
    return [
        Measurement(f"in process, {work}", in_process, "s"),
        Measurement(f"flwr run (Ray), {work}", flower, "s"),
        Measurement("flwr run over in process", flower / in_process, "times", ">= 20"),
        Measurement("1,000 sites in process, peak memory", memory_of_round(1000), "GiB", "<= 4"),
    ]


def memory_of_round(sites: int) -> float:
    """Return the peak resident memory, in GiB, of one round in a process of its own.

    Every site returns its own copy of the model, as a site that trains does.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as child:
        return child.submit(_run_and_read_peak_memory, sites).result()


@client_app.train()
def echo(message: Message, context: Context) -> Message:
    """Return the content itself."""
    return Message(message.content, reply_to=message)


@client_app.train("copy")
def copy(message: Message, context: Context) -> Message:
    """Return new arrays with the values received."""
    arrays = message.content.array_records["model"].to_numpy_ndarrays()
    return Message(RecordDict({"model": ArrayRecord(arrays)}), reply_to=message)


@server_app.main()
def send_model(grid: Grid, context: Context) -> None:
    """Send the model to all nodes, round after round."""
    model = np.random.default_rng(0).standard_normal(MODEL_VALUES, dtype=np.float32)
    content = RecordDict({"model": ArrayRecord([model])})
    message_type = str(context.run_config["message-type"])
    nodes = _all_nodes(grid, int(context.run_config["sites"]))
    for _ in range(int(context.run_config["rounds"])):
        messages = [Message(content, node_id, message_type) for node_id in nodes]
        for reply in _replies(grid, messages):
            if reply.content.array_records["model"].count_bytes() < model.nbytes:
                raise FedDermError("a site did not return the model")


def _all_nodes(grid: Grid, sites: int) -> list[int]:
    # Under `flwr run` the server app starts before the sites are registered.
    while len(nodes := list(grid.get_node_ids())) < sites:
        time.sleep(POLL_SECONDS)
    return nodes


def _replies(grid: Grid, messages: list[Message]) -> Iterator[Message]:
    ids = set(grid.push_messages(messages))
    while ids:
        replies = list(grid.pull_messages(ids))
        ids -= {reply.metadata.reply_to_message_id for reply in replies}
        yield from replies
        if not replies:
            time.sleep(POLL_SECONDS)


def _time_in_process(sites: int, rounds: int) -> float:
    return timed(lambda: _run_in_process(_run_config(sites, rounds, "train")))[1]


def _time_flower(folder: Path, sites: int, rounds: int) -> float:
    app_dir = folder / "app"
    app_dir.mkdir()
    (app_dir / "pyproject.toml").write_text(PYPROJECT)
    config = _run_config(sites, rounds, "train")
    run, seconds = timed(lambda: flwr_run(app_dir, config, sites, folder / "home"))
    if run.returncode != 0:
        raise FedDermError(f"flwr run failed:\n{run.stdout}")
    return seconds


def _run_config(sites: int, rounds: int, message_type: str) -> UserConfig:
    return {"sites": sites, "rounds": rounds, "message-type": message_type}


def _run_in_process(run_config: UserConfig) -> None:
    node_configs: list[UserConfig] = [{} for _ in range(int(run_config["sites"]))]
    run_in_process(server_app, client_app, node_configs, run_config)


def _run_and_read_peak_memory(sites: int) -> float:
    _run_in_process(_run_config(sites, 1, "train.copy"))
    return peak_memory()
