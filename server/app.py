"""The app that runs at the coordinator: join, train, write the run folder."""

import logging
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from typing import Any

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from common.answers.watch import WatchCounts
from common.config.run import RunConfig
from common.errors import DataError, QuorumError
from common.logs import log_lines
from common.methods import METHODS
from common.task import Task
from server.deployment.local_superlink import local_superlink
from server.federation.federation import Federation
from server.federation.site_info import differing
from server.method import ServerMethod, server_method, survey_method
from server.run.card import model_card
from server.run.expected import write_expected
from server.run.folder import ANOTHER_FOLDER, CARD_FILE, METRICS_FILE, RunFolder
from server.run.parent import LINEAGE, Parent
from server.run.summary import result_text
from server.survey.documents import write_survey

app = ServerApp()

_log = logging.getLogger(__name__)


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run one training from the configuration to the model; a finished one stays as it is.

    Raises
    ------
    FedDermError
        If the configuration is wrong, the folder is taken or too few sites are left; what
        was written before stays, and the same run started again goes on from there.
    """
    _begin_log(grid)
    config = RunConfig.read(context.run_config)
    method = server_method(config)
    method.check(config)
    with RunFolder.opened(config) as folder:
        if folder.finished:
            _log.warning(
                "%s holds this run, finished before; for another one, %s",
                folder.path,
                ANOTHER_FOLDER,
            )
            _log_end(folder)
            return
        federation = Federation(grid, config, folder)
        # Where there is a model, sites that cannot be reached are missed by nobody.
        with suppress(QuorumError) if folder.trained else nullcontext():
            federation.join()
        try:
            if folder.trained:
                pass
            elif METHODS[config.method].model:
                _train(method, federation, config, folder)
            else:
                write_survey(folder, survey_method(config).survey(federation, config))
        finally:
            # Only now: a run whose sites had forgotten it could not go on from here.
            federation.close(folder.trained)
        folder.forget()
        _log_end(folder)


def _begin_log(grid: Grid) -> None:
    """Show this app's log where Flower starts the app: Flower shows its own log alone.

    A grid that is ``in_process`` leaves the log to the program that runs it.
    """
    if not (logging.getLogger().handlers or getattr(grid, "in_process", False)):
        log_lines(logging.WARNING, "%(levelname)s %(message)s")
        logging.getLogger("server").setLevel(logging.INFO)
        logging.getLogger("flwr").propagate = False  # shown already


def _log_end(folder: RunFolder) -> None:
    if not _log.isEnabledFor(logging.INFO):
        return
    for line in filter(None, result_text(folder.path).splitlines()):
        _log.info("%s", line)
    _log.info("run folder: %s", folder.path.resolve())
    if superlink := local_superlink():
        _log.info("Flower's local SuperLink stays for the next run; end it: kill %d", superlink)


def _train(
    method: ServerMethod, federation: Federation, config: RunConfig, folder: RunFolder
) -> None:
    result = method.train(federation, config, folder)
    if config.feature_spec.key != folder.features:
        raise DataError(
            "the file of the pretrained weights was replaced while the run went on; put the "
            "first one back and start the run again, or begin a new one"
        )
    metrics = {"data": _data(federation, config.task), **result.metrics()}
    if parent := Parent.of(config):
        metrics[LINEAGE] = parent.lineage(config, federation.sites)
    folder.write_json(METRICS_FILE, metrics)
    if result.answers is not None:
        write_expected(folder.path, WatchCounts.expected(result.answers.total))
    folder.write_text(CARD_FILE, model_card(config, method, metrics))
    folder.finish(result.model)


def _data(federation: Federation, task: Task) -> Mapping[str, Any]:
    sites = {name: info.model_dump() for name, info in federation.sites.items()}
    return {
        "synthetic": any(site["synthetic"] for site in sites.values()),
        "sites": sites,
        "differing": differing(federation.sites, task),
        "left_out": federation.faults,
    }
