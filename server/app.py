"""The app that runs at the coordinator: join, train, write the run folder."""

import importlib
from collections.abc import Mapping
from typing import Any

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from common.config import RunConfig
from server.card import model_card
from server.federation import Federation
from server.result import Result
from server.run import CARD_FILE, METRICS_FILE, RunFolder

METHODS = {
    "svm": "server.svm",
    "finetune": "server.finetune",
    "private": "server.private",
    "private_finetune": "server.private_finetune",
}
"""Modules, imported when they are asked for: not every method needs PyTorch."""

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run one training from the configuration to the model.

    Raises
    ------
    FedDermError
        If the configuration is wrong, the folder is taken or too few sites are left; what
        was written before stays, and the same run started again goes on from there.
    """
    config = RunConfig.read(context.run_config)
    folder = RunFolder(config)
    federation = Federation(grid, config, folder)
    federation.join()
    finished = False
    try:
        train = importlib.import_module(METHODS[config.method]).train
        result: Result = train(federation, config, folder)
        metrics = {"data": _data(federation), **result.metrics()}
        folder.write_json(METRICS_FILE, metrics)
        folder.write_text(CARD_FILE, model_card(config, metrics))
        folder.finish(result.model)
        finished = True
    finally:
        # Only now: a run whose sites had forgotten it could not go on from here.
        federation.close(finished)


def _data(federation: Federation) -> Mapping[str, Any]:
    sites = {name: info.model_dump() for name, info in federation.sites.items()}
    return {
        "synthetic": any(site["synthetic"] for site in sites.values()),
        "sites": sites,
        "left_out": federation.faults,
    }
