"""``fedderm models``: the versions of a model at whoever answers with it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from common.answers.verdict import REFUSED, decision
from common.errors import ConfigError, DataError, reason
from common.formats import markdown_table
from common.json_types import JsonObject
from common.models.file import load_model
from common.models.registry import MODEL_FILE, Registry, Version, changing
from common.storage.reading import read_bytes
from common.text import printable
from server.run.folder import GATE, METRICS_FILE, model_file, read_metrics
from simulations.cli.read_settings import Weights

app = typer.Typer(help="Keep the versions of a model, and choose which one answers.")

Models = Annotated[Path, typer.Argument(metavar="MODELS", help="Folder of the model registry.")]


@app.command("list")
def list_versions(models: Models) -> None:
    """List the versions, and which one is current."""
    registry = Registry.open(models)
    header = ("version", "SHA-256", "trained on from", "added", "gate", "")
    typer.echo(markdown_table(header, [_row(registry, each) for each in registry.versions]))


@app.command()
def promote(
    models: Models,
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run, or its model file.")],
    ungated: Annotated[
        bool,
        typer.Option("--ungated", help="Also a model that nobody compared with the current one."),
    ] = False,
    weights: Weights = None,
) -> None:
    """Make a run's model the current version, if its run's gate says that it may be.

    The run compared it, by gate=true, with the current version. The first version needs no gate.
    The exit code is 3 where the current version stays.
    """
    from server.run.parent import LINEAGE  # it imports Flower

    file = model_file(run)
    load_model(file, *(weights or ()))
    metrics = _metrics(file)
    with changing(models) as registry:
        gate = _gate(registry, run, metrics.get(GATE), ungated)
        if gate and not gate["accepted"]:
            typer.echo(printable(decision(gate["reason"])))
            raise typer.Exit(REFUSED)
        ancestors = metrics.get(LINEAGE, {}).get("ancestors", [None])
        registry = registry.promoted_version(_files(file), ancestors[0], gate)
    typer.echo(_current(registry))


@app.command()
def rollback(
    models: Models,
    version: Annotated[
        int | None,
        typer.Argument(help="Version to go back to.", show_default="the one before"),
    ] = None,
) -> None:
    """Make an earlier version the current one again."""
    with changing(models) as registry:
        if not registry.versions:
            raise DataError(f"{models} is no model registry; `fedderm models promote` makes one")
        registry = registry.rolled_back(version)
    typer.echo(_current(registry))


def _metrics(file: Path) -> JsonObject:
    """Return what a model's run says of it; nothing where its file came alone."""
    try:
        return read_metrics(file.parent)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        where = file.parent / METRICS_FILE
        raise DataError(f"{where} cannot be read ({reason(error)}); copy the run again") from error


def _files(file: Path) -> Mapping[str, bytes]:
    """Return the files of a run beside its model; of a model that came alone, it alone."""
    whole = (file.parent / METRICS_FILE).is_file()
    others = [each for each in file.parent.iterdir() if whole and each.is_file()]
    return {each.name: read_bytes(each) for each in others} | {MODEL_FILE: read_bytes(file)}


def _gate(
    registry: Registry, run: Path, gate: JsonObject | None, ungated: bool
) -> JsonObject | None:
    """Return how a model did beside the current version; None where that need not be known.

    Raises
    ------
    ConfigError
        If nobody compared the two.
    """
    if not registry.promoted:
        return None
    current = registry.current
    if gate and gate["old"] == current.sha256:
        return gate
    if ungated:
        return None
    raise ConfigError(
        f"nobody compared {run} with version {current.number}: train with gate=true and parent="
        f"{registry.folder / str(current.number)}, or add --ungated"
    )


def _row(registry: Registry, version: Version) -> tuple[str, ...]:
    gate = "accepted" if version.gate else "none"
    return (
        str(version.number),
        version.sha256[:16],
        (version.parent or "")[:16],
        version.added,
        gate,
        "current" if version == registry.current else "",
    )


def _current(registry: Registry) -> str:
    version = registry.current
    return f"current: version {version.number}, {version.sha256[:16]} (SHA-256)"
