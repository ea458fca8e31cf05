"""What the coordinator of a federation sees: server, sites, the last run, certificates."""

import tomllib
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

from common.errors import reason
from common.operation.status import (
    Code,
    Level,
    Metric,
    Notice,
    Part,
    Status,
    certificates,
    metrics_by,
)
from common.site_folder import AUTHORITY
from common.storage.reading import read_text
from server.deployment import operations
from server.deployment.nodes import numbers, states
from server.deployment.server_files import SERVER
from server.run.observed import ObservedRun

_PATIENCE = 60.0
"""Seconds in which the server must list its nodes; a busy machine is slow to start the command."""

_ONLINE, UNKNOWN = "online", "unknown"
"""State of a site whose node the server did not tell of."""


def coordinator_status(folder: Path, now: datetime) -> Status:
    """Look at a coordinator's folder and server; nothing is started, and nothing waits for it.

    Raises
    ------
    ConfigError
        If the coordinator's file is wrong.
    """
    coordinator = operations.Coordinator.read(folder)
    run = ObservedRun.read(_run_folder(folder, coordinator), now.timestamp())
    files = [folder / AUTHORITY, folder / SERVER]
    parts = [_server(folder, coordinator.address), _run(run), certificates(files, now)]
    return Status("coordinator", str(folder), now, parts)


def _server(folder: Path, address: str) -> Part:
    """Ask the server which nodes are connected."""
    nodes, why = _nodes(folder)
    sites = _sites(folder, nodes)
    online = sum(state == _ONLINE for state in nodes.values())
    facts = {
        "server": {"address": address, "answers": not why},
        "sites": {"connected": online, "by_name": sites},
    }
    lines = {
        "server": f"{'does not answer' if why else 'answers'} at {address}",
        "sites": f"{online} of {len(sites)} connected: {_in_words(sites)}",
    }
    connected = {name: state == _ONLINE for name, state in sites.items()}
    metrics = [
        Metric("server_up", "whether the server answers", not why),
        Metric("sites_connected", "nodes that are connected", online),
        *metrics_by("site_connected", "whether the node of a site is", "site", connected),
    ]
    return Part(facts, lines, metrics, _of_server(address, why, sites, online))


def _nodes(folder: Path) -> tuple[dict[str, str], str]:
    """Return the state of each registered node by its number; and why, where there is no answer."""
    try:
        operations.reach_server(folder)
        return states(operations.environment_of(folder), _PATIENCE), ""
    except (OSError, ValueError, LookupError, TypeError) as error:
        return {}, reason(error)


def _sites(folder: Path, nodes: Mapping[str, str]) -> dict[str, str]:
    """Return the state of the node of each site whose key is in the folder."""
    return {name: nodes.get(number, UNKNOWN) for name, number in numbers(folder).items()}


def _run_folder(folder: Path, coordinator: operations.Coordinator) -> Path:
    """Return the folder of the run that was started last; of none, that of the next one."""
    try:
        settings = read_text(folder / operations.RUN_FILE).partition("\n")[2]
        return Path(str(tomllib.loads(settings)["out"]))
    except (OSError, ValueError, LookupError):
        return Path(str(coordinator.run_config(folder)["out"]))


def _in_words(sites: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {state}" for name, state in sites.items()) or "no key in nodes"


def _run(run: ObservedRun | None) -> Part:
    facts = {"run": None if run is None else asdict(run)}
    return Part(facts, _run_in_words(run), _run_metrics(run), _of_run(run))


def _run_in_words(run: ObservedRun | None) -> dict[str, str]:
    if run is None:
        return {"run": "none yet"}
    says = [f"{run.folder} {run.state}", run.method, f"{run.rounds} questions asked"]
    if run.seconds_since is not None:
        says.append(f"'{run.question}' {run.seconds_since:.0f} s ago")
    if run.trained is not None:
        says.append(f"round {run.trained}" + (f" of {run.planned}" if run.planned else ""))
    if run.seconds_left is not None:
        says.append(f"about {run.seconds_left:.0f} s left")
    lines = {"run": ", ".join(filter(None, says))}
    if run.rounds:
        lines["in it"] = ", ".join(run.members) or "no site"
    if run.refusals:
        counts = [f"{site} {count}" for site, count in run.refusals.items()]
        lines["not answered"] = ", ".join(counts)
    return lines


def _of_server(address: str, why: str, sites: Mapping[str, str], online: int) -> list[Notice]:
    if why:
        says = f"no server answers at {address} ({why}); start run.sh, and see what it says"
        return [Notice(Level.ALARM, Code.SERVER, says)]
    if away := [name for name, state in sites.items() if state not in (_ONLINE, UNKNOWN)]:
        says = f"the nodes of {', '.join(away)} are not connected; ask their operators"
        return [Notice(Level.WARNING, Code.AWAY, says)]
    if online < len(sites):
        says = f"{online} of {len(sites)} nodes are connected; ask the operators"
        return [Notice(Level.WARNING, Code.AWAY, says)]
    return []


def _of_run(run: ObservedRun | None) -> list[Notice]:
    """Return what is to be known of a run that has no result yet."""
    if run is None or run.state == "finished":
        return []
    notices = []
    if run.state == "stopped" and run.below_quorum:
        says = f"{run.folder} stopped with {len(run.members)} sites, the quorum is {run.quorum}"
        again = "train.sh started again goes on when they are back"
        notices.append(Notice(Level.ALARM, Code.QUORUM, f"{says}; {again}"))
    elif run.state == "stopped":
        says = f"{run.folder} stopped without a result; train.sh says why and goes on with it"
        notices.append(Notice(Level.ALARM, Code.STOPPED, says))
    for site, why in run.left_out.items():
        notices.append(Notice(Level.WARNING, Code.LEFT_OUT, f"{site} is not in the run: {why}"))
    return notices


def _run_metrics(run: ObservedRun | None) -> list[Metric]:
    if run is None:
        return []
    numbers: dict[str, tuple[str, float | None]] = {
        "run_running": ("whether a process trains", run.state == "running"),
        "run_finished": ("whether the run has its result", run.state == "finished"),
        "run_questions": ("questions that were asked", run.rounds),
        "run_sites": ("sites that are in the run", len(run.members)),
        "run_quorum": ("sites that a model needs", run.quorum),
        "run_seconds_since_answer": ("seconds since the last answers", run.seconds_since),
        "run_rounds": ("rounds of training that are done", run.trained),
        "run_rounds_planned": ("rounds of training that there will be", run.planned),
        "run_seconds_left": ("seconds that training will take", run.seconds_left),
        "run_bytes_down": ("bytes sent to the sites", run.bytes_down),
        "run_bytes_up": ("bytes sent by the sites", run.bytes_up),
    }
    return [
        *(Metric(name, says, n) for name, (says, n) in numbers.items() if n is not None),
        *metrics_by("run_not_answered", "questions not answered", "site", run.refusals),
    ]
