"""``fedderm status``: how a coordinator or a hospital is, for a person and for programs."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from common.errors import ConfigError
from common.operation.prometheus import check_file, write_metrics
from common.operation.status import Status
from common.site_folder import FILE as SITE_FILE


def status(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="A coordinator's folder or a hospital's.")
    ],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object in place of the page.")
    ] = False,
    prometheus: Annotated[
        Path | None,
        typer.Option(metavar="FILE.prom", help="Also write numbers for Prometheus; replaced."),
    ] = None,
) -> None:
    """Tell how a coordinator or a hospital is; nothing is started, changed or kept waiting.

    The exit code is 0 where all is well, 3 for a warning and 4 for an alarm.
    """
    if prometheus is not None:
        check_file(prometheus)
    seen = look(folder, datetime.now(UTC))
    lines = [json.dumps(seen.as_json())] if as_json else seen.text()
    for line in lines:
        typer.echo(line)
    if prometheus is not None:
        write_metrics(prometheus, seen.metrics())
    raise typer.Exit(seen.level)


def look(folder: Path, now: datetime) -> Status:
    """Look at a folder of either kind at a time ``now``.

    Raises
    ------
    ConfigError
        If it is none, or its file is wrong.
    """
    if (folder / SITE_FILE).is_file():
        from client.operator.status import site_status  # it imports Flower

        return site_status(folder, now)
    from server.deployment.operations import COORDINATOR_FILE
    from server.deployment.status import coordinator_status

    if (folder / COORDINATOR_FILE).is_file():
        return coordinator_status(folder, now)
    raise ConfigError(
        f"{folder} has neither {SITE_FILE} nor {COORDINATOR_FILE}; name a coordinator's folder or "
        "a hospital's"
    )
