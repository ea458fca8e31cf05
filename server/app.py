"""The app that runs at the coordinator: join, train, write the run folder."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from common.config import RunConfig
from server import svm
from server.federation import Federation
from server.run import METRICS_FILE, MODEL_FILE, RunFolder

METHODS = {"svm": svm.train}

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run one training from the configuration to the model.

    Raises
    ------
    FedDermError
        If the configuration is wrong, the folder is taken or too few sites are left; what
        was written before stays.
    """
    config = RunConfig.read(context.run_config)
    folder = RunFolder(config)
    federation = Federation(grid, config, folder)
    federation.join()
    try:
        result = METHODS[config.method](federation, config)
    finally:
        federation.close()
    metrics = {"data": _data(federation), **result.metrics()}
    result.model.save(folder.path / MODEL_FILE)
    folder.write(METRICS_FILE, metrics)


def _data(federation: Federation) -> Mapping[str, Any]:
    sites = {name: asdict(info) for name, info in federation.sites.items()}
    return {"synthetic": any(site["synthetic"] for site in sites.values()), "sites": sites}
