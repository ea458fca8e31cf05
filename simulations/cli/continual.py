"""``fedderm continual``: what a federation keeps of the old while it learns the new."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from common.command_line import command
from common.errors import ConfigError
from common.methods import METHODS
from common.text import suggestion
from simulations.cli.data import Data
from simulations.cli.read_settings import ConfigFile, Settings, key_values, read_settings
from simulations.continual.scenarios import ScenarioName

if TYPE_CHECKING:
    from simulations.continual import training

_PARENT = "parent"


def continual(
    data: Data,
    out: Annotated[Path, typer.Option(help="New folder for the results.")],
    scenario: Annotated[
        ScenarioName,
        typer.Option(
            help="What arrives step by step: sites, lesions in five parts, diagnoses, or images "
            "of one site by another camera."
        ),
    ] = "sites",
    ways: Annotated[
        str | None,
        typer.Option(help="Ways to learn beside joint training.", show_default="all of the method"),
    ] = None,
    update: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Setting of the steps that go on from another."),
    ] = None,
    settings: Settings = None,
    config: ConfigFile = None,
) -> None:
    """Train a federation over the sources of DIR step by step; compare with joint training.

    An interrupted call goes on when it is started again with the same command.
    """
    from simulations.continual import measures, report, training
    from simulations.continual.scenarios import Scenario
    from simulations.runtimes.experiment import open_for

    run = read_settings(settings, config)
    if _PARENT not in METHODS[run.method].settings:
        raise ConfigError(
            f"method {run.method} cannot go on from a finished run; set method=svm or finetune"
        )
    chosen = _chosen(training.ways_of(run), ways)
    run, dataset = open_for(run, data)
    of_data = Scenario.of(scenario, dataset, out / "changed", run.seed)
    steps = training.train_all(of_data, scenario, run, key_values(update), out, chosen)
    found = measures.measure(of_data, steps, run.cache.expanduser(), run.weights, run.seed)
    typer.echo(report.write_report(out, scenario, command(), of_data, chosen, found))


def _chosen(offered: "dict[str, training.Way]", names: str | None) -> "dict[str, training.Way]":
    """Return the joint way and those that were named, all if none was."""
    from simulations.continual.training import JOINT

    wanted = list(offered) if names is None else [JOINT, *names.split(",")]
    if unknown := [name for name in wanted if name not in offered]:
        raise ConfigError(
            f"unknown way {unknown[0]!r}{suggestion(unknown[0], offered)}; there are "
            f"{', '.join(offered)}"
        )
    return {name: way for name, way in offered.items() if name in wanted}
