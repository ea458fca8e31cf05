"""The command ``fedderm``."""

import logging
import secrets
from pathlib import Path
from typing import Annotated, Literal

import typer

from client.operator import cli as site_cli
from common.command_line import command
from common.command_line import run as run_command
from common.config.run import RunConfig
from common.data.dataset import Dataset
from common.errors import ConfigError
from common.features.extract import content_keys, extract
from common.logs import log_lines
from common.methods import METHODS
from common.networks.appearance_rows import appearances
from common.text import printable
from server.deployment import cli as deploy_cli
from simulations.cli import data as data_cli
from simulations.cli import models as models_cli
from simulations.cli import privacy as privacy_cli
from simulations.cli.continual import continual
from simulations.cli.drift import drift
from simulations.cli.evaluate import evaluate
from simulations.cli.export import export, ranges
from simulations.cli.gate import gate
from simulations.cli.label import label
from simulations.cli.marks import marks
from simulations.cli.predict import predict, serve
from simulations.cli.read_settings import ConfigFile, From, Settings, read_settings
from simulations.cli.settings import settings_text
from simulations.cli.status import status

# Flower takes a second to import: what needs it is imported where it is used.

app = typer.Typer(
    help="Hospitals train one skin-lesion classifier; no image leaves its hospital.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(data_cli.app, name="data")
app.add_typer(models_cli.app, name="models")
app.add_typer(privacy_cli.app, name="privacy")
app.add_typer(deploy_cli.app, name="deploy")
app.add_typer(site_cli.app, name="site")

Out = Annotated[Path, typer.Option(help="New folder for the results.")]
_CACHE = RunConfig().cache

PROGRESS_LOGGERS = (
    "common.features.extract",
    "server.run.progress",
    "simulations.attacks.trials",
    "simulations.study.comparison",
    "simulations.evaluation.exported",
    "simulations.study.training.schedule",
)
"""Loggers, named as the modules are, that say how far a long command is."""


@app.command()
def settings(
    method: Annotated[str | None, typer.Argument(help="Only those that it uses.")] = None,
) -> None:
    """List the settings with their defaults, ranges and meanings."""
    # A wrong name is refused as in a configuration.
    chosen = None if method is None else METHODS[RunConfig.read({"method": method}).method]
    typer.echo(settings_text(chosen))


@app.command()
def pins(settings: Settings = None, config: ConfigFile = None) -> None:
    """Print the hashes of program, weights and network for a hospital's file of pins.

    Operators compare what they print with each other, and with what they reviewed.
    """
    from client.operator.pins import digests  # it imports Flower

    for name, digest in digests(read_settings(settings, config)).items():
        typer.echo(f"{name:8} {digest}")


@app.command()
def features(data: data_cli.Data, settings: Settings = None, config: ConfigFile = None) -> None:
    """Compute the frozen features of all images in DIR, and how they look, before a run."""
    run, dataset = read_settings(settings, config), Dataset.open(data)
    cache = run.cache.expanduser()
    computed = extract(dataset, run.feature_spec, cache, progress=True)
    appearances(dataset, run.feature_spec, cache, content_keys(dataset))
    n, views, size = computed.views.shape
    typer.echo(printable(f"{n} images, {views} views of {size} features each, in {run.cache}"))


@app.command()
def simulate(
    data: data_cli.Data,
    out: Out,
    scheme: Annotated[
        Literal["natural", "iid", "dirichlet", "quantity", "folders"],
        typer.Option(
            help="How images are divided over sites; folders: DIR has one folder per site already."
        ),
    ] = "natural",
    sites: data_cli.Sites = None,
    alpha: data_cli.Alpha = 0.5,
    parent: From = None,
    settings: Settings = None,
    config: ConfigFile = None,
) -> None:
    """Partition DIR over simulated sites and train over them, in this process."""
    from simulations.runtimes import experiment

    run = read_settings(settings, config, parent)
    _show(experiment.train(run, data, out, scheme, sites, alpha))


@app.command()
def centralized(
    data: data_cli.Data,
    out: Out,
    parent: From = None,
    settings: Settings = None,
    config: ConfigFile = None,
) -> None:
    """Train on all images of DIR at one site: the centralized baseline."""
    from simulations.runtimes import experiment

    run = read_settings(settings, config, parent)
    _show(experiment.train(run, data, out, experiment.POOLED))


@app.command()
def compare(
    data: data_cli.Data,
    out: Out,
    study: Annotated[
        Path | None,
        typer.Option(help="Study file (TOML).", show_default="one for the built-in set"),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=1000,
            help="Cells side by side; 0 trains nothing and reports what is there.",
            show_default="one on each core",
        ),
    ] = None,
    cache: Annotated[Path, typer.Option(help="Folder for features.")] = _CACHE,
) -> None:
    """Run a study: cross-validate routes and partitions, and write a report.

    A study that was stopped goes on when it is started again with the same command.
    """
    from simulations.study import comparison
    from simulations.study.definition import DEFAULT_STUDY, Study
    from simulations.study.report import page
    from simulations.study.training import schedule

    definition = Study.read(study or DEFAULT_STUDY)
    side_by_side = schedule.default_jobs() if jobs is None else jobs
    findings = comparison.compare(data, out, definition, cache, side_by_side)
    typer.echo(page.write_report(out, findings))
    typer.echo(printable(f"report: {out / page.HTML_FILE}"))


app.command()(evaluate)
app.command()(predict)
app.command()(export)
app.command()(ranges)
app.command()(gate)
app.command()(continual)
app.command()(drift)
app.command()(label)
app.command()(marks)
app.command()(status)
app.command()(serve)


@app.command()
def attack(
    data: data_cli.Data,
    out: Out,
    sites: Annotated[int, typer.Option(help="Number of Dirichlet sites.")] = 10,
    alpha: data_cli.Alpha = 0.5,
    hostile: Annotated[str, typer.Option(help="Numbers of hostile sites.")] = "1,2,3",
    attacks: Annotated[
        str | None, typer.Option(help="Some of the attacks.", show_default="all")
    ] = None,
    rules: Annotated[
        str | None, typer.Option(help="Rules to try.", show_default="that of the settings")
    ] = None,
    judged: Annotated[
        Literal["test", "validation"],
        typer.Option(help="Lesions to judge on; choose settings on validation."),
    ] = "test",
    settings: Settings = None,
    config: ConfigFile = None,
) -> None:
    """Fine-tune with hostile sites among the others, with a defence and without.

    An interrupted call goes on when it is started again with the same command.
    """
    from simulations.attacks import hostile_sites, trials

    run = read_settings(settings, config)
    names = attacks.split(",") if attacks else list(hostile_sites.ATTACKS)
    tried = rules.split(",") if rules else [run.robust]
    arms = trials.attack_all(data, out, run, sites, alpha, names, _numbers(hostile), tried, judged)
    text = trials.report(arms, command(), Dataset.open(data).synthetic)
    (out / f"attacks-{judged}.md").write_text(text, encoding="utf-8")
    typer.echo(text)


@deploy_cli.app.command("demo")
def deploy_demo(
    data: data_cli.Data,
    out: Annotated[Path, typer.Option(help="New folder for everything.")],
    hosts: Annotated[
        bool,
        typer.Option(
            "--hosts", help="Each on a host of its own, where things go wrong; needs root on Linux."
        ),
    ] = False,
) -> None:
    """Run a coordinator and four hospitals as processes of this machine, from keys to a model."""
    from simulations.cli.deploy_demo import demo, demo_on_hosts

    (demo_on_hosts if hosts else demo)(data, out)


@app.command()
def download(
    backbone: Annotated[str, typer.Argument(help="A name of timm's, such as resnet18.a1_in1k.")],
    out: Annotated[Path, typer.Option(help="New .safetensors file.")],
    sha256: Annotated[str, typer.Option(help="What the file must have, as its page shows it.")],
) -> None:
    """Fetch a backbone's pretrained weights from timm's model hub, on a machine that reaches it."""
    from common.features.download import download_weights

    download_weights(backbone, sha256, out)
    typer.echo(printable(f"to use it: backbone={backbone} weights={out}"))


@app.command()
def soak(
    data: data_cli.Data,
    out: Annotated[Path, typer.Option(help="New folder for everything.")],
    minutes: Annotated[
        float, typer.Option(min=0, help="Disturbed runs begin for so long.")
    ] = 120.0,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Of the faults.", show_default="another each time")
    ] = None,
) -> None:
    """Let four hospitals train for hours while things go wrong; needs root on Linux."""
    from simulations.runtimes.stop_signals import sigterm_raises
    from simulations.soak.soak import soak as run

    chosen = secrets.randbelow(2**32) if seed is None else seed
    typer.echo(f"seed {chosen}")
    with sigterm_raises():
        for line in run(data, out, minutes, chosen):
            typer.echo(printable(line))


@app.command()
def bench(
    data: data_cli.Data,
    c: Annotated[float, typer.Option(help="Regularisation strength of the SVMs timed.")] = 3e-4,
) -> None:
    """Measure speeds and their ratios, side by side in one run."""
    from simulations.bench.all import run

    for figure in run(data, read_settings([f"c={c}"], None).c[0]):
        target = f"   (target: {figure.target})" if figure.target else ""
        typer.echo(f"{figure.what:60} {figure.value:10.4g} {figure.unit}{target}")


def _numbers(text: str) -> list[int]:
    try:
        return [int(number) for number in text.split(",")]
    except ValueError as error:
        raise ConfigError(f"'{text}' are no numbers; write them like 1,2,3") from error


def _show(run: Path) -> None:
    from server.run.summary import exit_code, result_text

    typer.echo(result_text(run))
    typer.echo(printable(f"run folder: {run}"))
    if code := exit_code(run):
        raise typer.Exit(code)


def main() -> None:
    """Run the command line; an error that a user can act on is one line and exit code 1."""
    log_lines(logging.WARNING, "%(levelname)s %(name)s: %(message)s")
    for name in PROGRESS_LOGGERS:
        logging.getLogger(name).setLevel(logging.INFO)
    run_command(app)
